package shim

// platformArch is this build's architecture as Go calls it.
const platformArch = "amd64"
