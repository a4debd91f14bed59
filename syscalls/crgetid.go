package syscalls

// handleCrgetid is int crgetid(void): the last crid that checkpoint gave the calling process, 0 if none.
func handleCrgetid(c *Context) (int64, error) {
	crid, err := c.LastCRID()
	return int64(crid), err
}
