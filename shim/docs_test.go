package shim

import (
	"os"
	"path/filepath"
	"testing"
)

// TestGeneratedPagesAreFresh is what `make generate-check` asks, beside the code.
func TestGeneratedPagesAreFresh(t *testing.T) {
	if status, _, errs := cli("docs", "--check", "../docs"); status != 0 {
		t.Error(errs)
	}
}

func TestDocsCheckFindsAStalePage(t *testing.T) {
	dir := t.TempDir()
	if status, _, errs := cli("docs", "--check", dir); status != statusNo {
		t.Errorf("pages that are missing: status %d, %s", status, errs)
	}
	if status, _, errs := cli("docs", dir); status != 0 {
		t.Fatal(errs)
	}
	if status, _, errs := cli("docs", "--check", dir); status != 0 {
		t.Errorf("pages just written: status %d, %s", status, errs)
	}
	page := filepath.Join(dir, generated[0].name)
	if err := os.WriteFile(page, []byte("edited by hand\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if status, _, _ := cli("docs", "--check", dir); status != statusNo {
		t.Errorf("a page edited by hand: status %d", status)
	}
}
