package tests

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/crshim/crshim/"

// layers says what each folder may import of ours; a package belongs to its longest prefix. "*" is everything.
// The last field names the only modules from elsewhere that it may import; nil allows any.
var layers = map[string]struct{ ours, others []string }{
	"shim/cmd":      {ours: []string{"shim"}},
	"shim":          {ours: []string{"seccomp", "syscalls", "core", "core/image", "core/fault", "core/resource", "tracer", "tracer/procfs"}},
	"seccomp":       {ours: []string{}},
	"syscalls":      {ours: []string{"core", "core/task", "core/image", "core/fault", "tracer", "tracer/procfs"}},
	"core":          {ours: []string{"core/resource", "core/task", "core/object", "core/image", "core/fault", "tracer", "tracer/procfs"}},
	"core/resource": {ours: []string{"core/task", "core/object", "core/image", "core/fault", "tracer", "tracer/procfs"}},
	"core/task":     {ours: []string{"core/image", "core/fault", "tracer", "tracer/procfs"}},
	"core/object":   {ours: []string{"core/image", "core/fault", "tracer", "tracer/procfs"}},
	"core/image":    {ours: []string{}, others: []string{"github.com/cespare/xxhash/v2"}},
	"core/fault":    {ours: []string{}, others: []string{"golang.org/x/sys"}},
	"tracer":        {ours: []string{"tracer/procfs"}},
	"tracer/procfs": {ours: []string{}},
	"tests":         {ours: []string{"*"}},
	"samples":       {ours: []string{}},
}

// onlyIn names the one layer that may import a module.
var onlyIn = map[string]string{
	"github.com/sirupsen/logrus":           "shim",
	"github.com/seccomp/libseccomp-golang": "seccomp",
	"github.com/spf13/cobra":               "shim",
}

// machine are names that exist on one architecture only.
var machine = []string{"GOARCH", "PtraceRegs", "Rip", "Rsp", "Rax", "Orig_rax", "Fs_base", "Gs_base", "Eflags"}

// TestLayers holds every Go file to the house rules: imports run one way, unsafe and the architecture show in the file's name.
func TestLayers(t *testing.T) {
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != ".." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "bin") {
			return filepath.SkipDir
		}
		name, _ := filepath.Rel("..", path)
		if strings.HasSuffix(name, ".s") && !strings.HasSuffix(name, "_amd64.s") {
			t.Errorf("%s: assembly belongs in a file named for its architecture", name)
		}
		if strings.HasSuffix(name, ".go") {
			checkFile(t, path, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func checkFile(t *testing.T, path, name string) {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Error(err)
		return
	}
	layer := layerOf(filepath.Dir(name))
	rule, known := layers[layer]
	if !known {
		t.Errorf("%s: no layer for %s; give it one in layers_test.go", name, filepath.Dir(name))
	}
	stem := strings.TrimSuffix(strings.TrimSuffix(name, ".go"), "_test")
	amd64 := strings.HasSuffix(stem, "_amd64")
	unsafe := strings.HasSuffix(strings.TrimSuffix(stem, "_amd64"), "_unsafe")

	for _, spec := range file.Imports {
		imported, _ := strconv.Unquote(spec.Path.Value)
		if ours, ok := strings.CutPrefix(imported, module); ok {
			target := layerOf(ours)
			if target != layer && !slices.Contains(rule.ours, target) && !slices.Contains(rule.ours, "*") {
				t.Errorf("%s: %s may not import %s", name, layer, ours)
			}
			continue
		}
		if imported == "unsafe" && !unsafe {
			t.Errorf("%s: unsafe only in a file named *_unsafe.go", name)
		}
		for module, home := range onlyIn {
			if imported == module && layer != home {
				t.Errorf("%s: %s only in %s", name, module, home)
			}
		}
		outside := strings.Contains(strings.Split(imported, "/")[0], ".")
		if outside && rule.others != nil && !strings.HasSuffix(name, "_test.go") && !slices.ContainsFunc(rule.others, func(m string) bool { return imported == m || strings.HasPrefix(imported, m+"/") }) {
			t.Errorf("%s: %s may not import %s", name, layer, imported)
		}
	}
	found := map[string]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok && slices.Contains(machine, sel.Sel.Name) {
			found[sel.Sel.Name] = true
		}
		return true
	})
	if len(found) > 0 && !amd64 {
		t.Errorf("%s: %v only in a file named *_amd64.go", name, slices.Sorted(maps.Keys(found)))
	}
}

// layerOf returns the longest prefix of dir that is a layer, or "".
func layerOf(dir string) string {
	for ; dir != "."; dir = filepath.Dir(dir) {
		if _, ok := layers[dir]; ok {
			return dir
		}
	}
	return ""
}
