package shim

import "github.com/crshim/crshim/core/image"

// recordTable holds every kind of record that this build knows.
var recordTable = image.MustTable(append(append([]image.Spec{}, image.V13...), image.Common...)...)
