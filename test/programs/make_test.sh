. "$(dirname "$0")/lib.sh"
cd "$SCRATCH"
for i in $(seq 1 50); do echo "int f$i(int x) { return x + $i; }" > "f$i.c"; done
{ for i in $(seq 1 50); do echo "int f$i(int);"; done; echo '#include <stdio.h>'; echo 'int main(void) { int s = 0;'; for i in $(seq 1 50); do echo "s = f$i(s);"; done; echo 'printf("%d\n", s); return 0; }'; } > main.c
cat > Makefile <<'MK'
objects = $(patsubst %.c,%.o,$(wildcard *.c))
prog: $(objects)
	gcc -o $@ $^
%.o: %.c
	gcc -c -o $@ $<
MK
LIMIT=300
same "make -j2" 1275 "$(sandbox bash -c "cd '$SCRATCH' && make -s -j2 && ./prog" 2>&1)"
same "nothing was written outside" "" "$(ls "$SCRATCH" | grep -E '\.o$|^prog$')"
finish
