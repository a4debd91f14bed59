package image

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// original declares the structs of linux-cr v13 that the table names, from
// what is known of their fields, types and alignment.
const original = `
#include <stdint.h>
#include <stddef.h>
#include <stdio.h>

#define CR __attribute__((aligned(8)))

struct cr_hdr { int16_t type; int16_t len; uint32_t parent; };

struct cr_hdr_head {
	uint64_t magic;
	uint16_t major, minor, patch, rev;
	uint64_t time;
	uint64_t flags;
	char release[64], version[64], machine[64];
} CR;
struct cr_hdr_head_arch { uint16_t has_fxsr, has_xsave, xstate_size, _pading; } CR;
struct cr_hdr_tree { uint32_t tasks_nr; } CR;
struct cr_hdr_pids { int32_t vpid, vtgid, vppid; } CR;
struct cr_hdr_task {
	uint32_t state, exit_state, exit_code, exit_signal;
	int32_t task_comm_len;
} CR;
struct cr_hdr_thread { int16_t gdt_entry_tls_entries, sizeof_tls_array, ntls; } CR;
struct cr_hdr_cpu {
	uint64_t r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax;
	uint64_t ip, cs, flags, sp, ss;
	uint64_t ds, es, fs, gs;
	uint64_t debugreg0, debugreg1, debugreg2, debugreg3;
	uint64_t debugreg4, debugreg5, debugreg6, debugreg7;
	uint32_t uses_debug, used_math;
} CR;
struct cr_hdr_mm {
	uint32_t objref, map_count;
	uint64_t start_code, end_code, start_data, end_data;
	uint64_t start_brk, brk, start_stack;
	uint64_t arg_start, arg_end, env_start, env_end;
} CR;
struct cr_hdr_vma {
	uint32_t vma_type, _padding;
	uint64_t vm_start, vm_end, vm_page_prot, vm_flags, vm_pgoff;
} CR;
struct cr_hdr_pgarr { uint64_t nr_pages; } CR;
struct cr_hdr_mm_context { int16_t ldt_entry_size, nldt; } CR;
struct cr_hdr_files { uint32_t objref, nfds; } CR;
struct cr_hdr_fd_ent { uint32_t objref; int32_t fd; uint32_t close_on_exec; } CR;
struct cr_hdr_fd_data {
	uint16_t fd_type, f_mode;
	uint32_t f_flags;
	uint64_t f_pos, f_version;
} CR;
struct cr_hdr_tail { uint64_t magic; } CR;

#define SIZE(s) printf(#s " %zu\n", sizeof(struct s))
#define OFFSET(s, f) printf(#s "." #f " %zu\n", offsetof(struct s, f))
`

// A C compiler lays the original structs out as the Go structs are.
func TestRecordsAgreeWithC(t *testing.T) {
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("needs: a C compiler (cc)")
	}
	type named struct {
		cname string
		typ   reflect.Type
	}
	structs := []named{{"cr_hdr", nil}}
	for _, s := range table.Specs() {
		if s.CName != "" {
			structs = append(structs, named{s.CName, s.Type})
		}
		if s.Trailer != nil && s.Trailer.CName != "" {
			structs = append(structs, named{s.Trailer.CName, s.Trailer.Type})
		}
	}
	var program strings.Builder
	program.WriteString(original + "int main(void)\n{\n")
	var want []string
	for _, s := range structs {
		fmt.Fprintf(&program, "\tSIZE(%s);\n", s.cname)
		if s.typ == nil {
			want = append(want, fmt.Sprintf("%s %d", s.cname, headerSize))
			continue
		}
		want = append(want, fmt.Sprintf("%s %d", s.cname, s.typ.Size()))
		for i := range s.typ.NumField() {
			f := s.typ.Field(i)
			c := f.Tag.Get("c")
			if c == "" {
				if f.Name != "_" {
					t.Errorf("%v.%s names no C field", s.typ, f.Name)
				}
				continue
			}
			fmt.Fprintf(&program, "\tOFFSET(%s, %s);\n", s.cname, c)
			want = append(want, fmt.Sprintf("%s.%s %d", s.cname, c, f.Offset))
		}
	}
	program.WriteString("\treturn 0;\n}\n")
	if len(structs) != 16 {
		t.Errorf("%d structs of 2009 are compared, want 16", len(structs))
	}
	if got := compileAndRun(t, cc, program.String()); got != strings.Join(want, "\n")+"\n" {
		t.Errorf("the compiler says\n%s\nthe table says\n%s", got, strings.Join(want, "\n"))
	}
}

func compileAndRun(t *testing.T, cc, program string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	dir := t.TempDir()
	source, binary := filepath.Join(dir, "a.c"), filepath.Join(dir, "a.out")
	if err := os.WriteFile(source, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(ctx, cc, "-Wall", "-Werror", "-o", binary, source).CombinedOutput(); err != nil {
		t.Fatalf("compile: %v\n%s", err, out)
	}
	out, err := exec.CommandContext(ctx, binary).CombinedOutput()
	if err != nil {
		t.Fatalf("run: %v\n%s", err, out)
	}
	return string(out)
}
