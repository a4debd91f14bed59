# A project of C that make builds with four jobs at a time, and that then computes something. One line in "progress" per
# round; ends when there is a file "finish", with status 0 if everything was right.
set -u
cat >Makefile <<'END'
objects := $(patsubst %.c,%.o,$(wildcard *.c))
program: $(objects) ; cc -o $@ $^
%.o: %.c ; cc -O1 -c -o $@ $<
END
sum=0
for i in 1 2 3 4 5 6 7 8 9; do
    echo "int f$i(int n) { int s = 0; for (int k = 1; k <= n; k++) s += k * $i; return s; }" >"f$i.c"
    echo "int f$i(int);" >>main.h
    sum="$sum + f$i(10)"
done
cat >main.c <<END
#include <stdio.h>
#include "main.h"
int main(void) { printf("%d", $sum); return 0; }
END
rounds=0
while [ $rounds -lt 3 ] || [ ! -e finish ]; do
    rounds=$((rounds + 1))
    rm -f -- *.o program
    make -j4 >make.log 2>&1 || { cat make.log; exit 1; }
    [ "$(./program)" = 2475 ] || { ./program; exit 1; }
    [ "$(grep -c -e ' -c ' make.log)" = 10 ] || { cat make.log; exit 1; }
    make -q || { echo 'make: something is left to do'; exit 1; }
    echo $rounds >>progress
done
