// Package image is the bytes of a checkpoint image: records, their table, a
// writer, a reader and the checksum. It knows nothing of processes.
//
// An image is a stream of records, little endian, of the format that the
// patch set "Checkpoint/restart" of 2009 (linux-cr v13) defined:
//
//	+------+------+--------+=================+= = = = = = = = =+
//	| type | len  | parent | payload         | raw trailer     |
//	| s16  | s16  | u32    | len bytes       | of some kinds   |
//	+------+------+--------+=================+= = = = = = = = =+
//
//	HEAD HEAD_ARCH [MACHINE]  TREE pids
//	{ TASK STRING  MM { VMA [FNAME] { PGARR addrs pages }* PGARR(0) }* MM_CONTEXT
//	  FILES { FD_ENT [FD_DATA FNAME] }*  THREAD tls  CPU xstate }*
//	SUM TAIL
//
// Kinds up to 5001 are those of 2009. Kinds from 6001 up are our own; they
// never have a trailer, so that a reader can step over one it does not know.
// It does so silently for 7001 to 7999, which are kept for what a restart may
// leave out; any other unknown kind makes the image invalid.
//
// # The table
//
// A record is one Go struct and one row (Spec) made by Row. The struct is the
// layout: encoding/binary reads and writes its fields in order, padding is
// spelled out as blank fields, and only the last field may vary in length.
// Writer, reader, order check, documentation, inspection and tests all loop
// over the rows of a Table. NewTable refuses rows that break these rules.
//
// # Pages
//
// Page contents never pass through this package if the caller does not want
// it: Writer.Pages and Reader.Pages call a Mover at the moment when the stream
// stands at the contents, and the Mover has the bytes moved by whoever can do
// it best. A run of pages begins at a multiple of 4096 bytes from the start
// of the image, by a PAD record before it, so that a file can be mapped.
//
// # Integrity
//
// The SUM record before TAIL holds the XXH64 of every byte before it. Sums are
// computed on a goroutine of their own, which exists only while there is
// something to add. It calls Mover.Digest, in stream order, while later Moves
// already run; Drain waits until it has caught up.
//
// # Hostile input
//
// A Reader trusts nothing: every length is checked before memory is taken for
// it, and the memory taken for a trailer grows with the bytes that really
// arrive. Errors are *FormatError (which is ErrFormat), ErrTruncated,
// *RemoteError, or what the source returned. A Reader over a stream never reads a
// byte behind TAIL.
//
// # Concurrency
//
// A Table is read-only once made. A Writer or Reader belongs to one goroutine.
// What a Writer gathers is filled (Fill), summed and written on another one, which
// exists only while pieces wait: the stream stands at what was put last only after
// Flush, and who has given a filling keeps what it needs until Drain.
package image
