package shim

// How this build's architecture is called: by Go, and by uname(1) and the image.
const (
	platformArch = "amd64"
	machineName  = "x86_64"
)
