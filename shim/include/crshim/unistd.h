/* The numbers of the system calls that `crshim run` emulates, the same on x86-64 and i386. */
#ifndef CRSHIM_UNISTD_H
#define CRSHIM_UNISTD_H

#ifndef __NR_checkpoint
#define __NR_checkpoint 1000
#endif
#ifndef __NR_restart
#define __NR_restart 1001
#endif
#ifndef __NR_crgetid
#define __NR_crgetid 1002
#endif

#ifndef SYS_checkpoint
#define SYS_checkpoint __NR_checkpoint
#endif
#ifndef SYS_restart
#define SYS_restart __NR_restart
#endif
#ifndef SYS_crgetid
#define SYS_crgetid __NR_crgetid
#endif

#endif
