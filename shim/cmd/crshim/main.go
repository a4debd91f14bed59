// Crshim makes the system calls checkpoint and restart of 2009 work on an unmodified kernel.
package main

import (
	"os"

	"github.com/crshim/crshim/shim"
)

func main() {
	os.Exit(shim.Main())
}
