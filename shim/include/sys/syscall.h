/* The C library's <sys/syscall.h>, with the numbers of crshim's calls added: programs of 2009 include nothing else. */
#pragma GCC system_header
#include_next <sys/syscall.h>
#include <crshim/unistd.h>
