package core

import (
	"fmt"

	"github.com/crshim/crshim/core/fault"
)

// firstPID is the number of the first process of a pid namespace.
const firstPID = 1

// checkFirst refuses to make the first process of a pid namespace one among
// others: orphans would not come to it, and those below it know it as 1.
func (r *restart) checkFirst() error {
	view := r.plants[0].view
	if r.forest.living[0].VPID != firstPID || view.VPID() == firstPID {
		return nil
	}
	return &fault.Error{Code: fault.NotFirst, Object: "pid 1 of the image", Detail: fmt.Sprintf("%s is number %d of its namespace", view.Name(), view.VPID())}
}
