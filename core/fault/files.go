package fault

// 2120: files of the image, and what is attached to them.
const (
	FileContents Code = 2120
)

var files = []Entry{
	{FileContents, 0, "cannot make {a file} of the image with its contents",
		"A file that had been deleted is made anew, in its directory, or else in /var/tmp, /tmp or /dev/shm; none of them took it, or there is no room.",
		"Free disk space, or make its directory writable to the user who restarts."},
}
