package image

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
)

func TestWriteDocNamesEveryField(t *testing.T) {
	var b strings.Builder
	if err := WriteDoc(&b, withTails); err != nil {
		t.Fatal(err)
	}
	doc := b.String()
	for _, s := range withTails.Specs() {
		head := fmt.Sprintf("\n### %v %s\n", s.Kind, s.Name)
		_, section, ok := strings.Cut(doc, head)
		if !ok {
			t.Errorf("no section for %s", s.Name)
			continue
		}
		section, _, _ = strings.Cut(section, "\n### ")
		for _, f := range s.fields {
			want := fmt.Sprintf("| %d | %s | %s |", f.offset, f.length(), f.Name)
			if f.Name != "_" && !strings.Contains(section, want) {
				t.Errorf("section of %s lacks %q", s.Name, want)
			}
		}
		if s.CName != "" && !strings.Contains(section, "`struct "+s.CName+"`") {
			t.Errorf("section of %s lacks its C struct", s.Name)
		}
		if s.Trailer != nil && !strings.Contains(section, s.Trailer.Doc) {
			t.Errorf("section of %s lacks its trailer", s.Name)
		}
	}
	for _, want := range []string{"| +8 | 8 | each: End | | uint64 |", "| n × 24 | List |", "A restart may leave it out."} {
		if !strings.Contains(doc, want) {
			t.Errorf("nothing says %q", want)
		}
	}
	if err := WriteDoc(full{}, table); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("WriteDoc into a closed file = %v", err)
	}
}

// full is a writer that takes nothing.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, fs.ErrClosed }
