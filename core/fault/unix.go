package fault

import "golang.org/x/sys/unix"

// 1231: unix sockets cannot be saved; 2110: they cannot be made again.
const (
	UnixPeer      Code = 1231
	UnixQueue     Code = 1232
	UnixName      Code = 1233
	UnixState     Code = 1234
	UnixBacklog   Code = 1235
	UnixNamespace Code = 1236

	UnixNameTaken Code = 2110
	UnixNamed     Code = 2111
	UnixConnected Code = 2112
	UnixSent      Code = 2113
	UnixOption    Code = 2114
)

var unixSockets = []Entry{
	{UnixPeer, unix.EBADF, "cannot save {a descriptor}: unix socket connected to another process",
		"The other process knows nothing of the checkpoint, and would talk to nobody afterwards. Only as standard input, output or error can such a socket be replaced, by that of whoever restarts the program.",
		"Have the program close the connection first, or save both processes as a tree."},
	{UnixQueue, unix.EOPNOTSUPP, "cannot save {a descriptor}: unix socket with a message that cannot be sent again",
		"The message is from a process or a name that is not in the image, carries what cannot be saved or urgent data, or cannot be looked at without taking it out.",
		"Have the program read the message first; try again a moment later."},
	{UnixName, unix.EOPNOTSUPP, "cannot save {a descriptor}: unix socket whose name cannot be given again",
		"The socket file has been renamed, lies where it is not known to lie, or several connections have the name of a listening socket that has been closed.",
		"Have the program bind its sockets by the absolute name under which they stay, and keep the listening socket open."},
	{UnixState, unix.EOPNOTSUPP, "cannot save {a descriptor}: unix socket in a state that cannot be made again",
		"A packet filter, a datagram socket that is connected to one without a name, or an error that waits on a datagram socket has no call by which it could be put back.",
		"Have the program read the error, detach the filter or close the socket first."},
	{UnixBacklog, unix.EOPNOTSUPP, "cannot save {a descriptor}: connection to a listening unix socket that has not been accepted",
		"What waits to be accepted is from another process, or has been written to already, which nobody can read before it is accepted.",
		"Have the program accept the connection first; try again a moment later."},
	{UnixNamespace, unix.EOPNOTSUPP, "cannot save {a descriptor}: unix socket of which the kernel does not tell the peer",
		"Peers are told by the unix_diag module of the kernel, to processes of the network namespace in which the socket was made.",
		"Load the module with modprobe unix_diag, or run the program in that network namespace."},

	{UnixNameTaken, unix.EADDRINUSE, "cannot give {a unix socket} its name: it is in use",
		"Another socket has the name, or a file that is not a socket that nobody has any more. Nothing was removed.",
		"End the process that has it, or remove the file."},
	{UnixNamed, 0, "cannot give {a unix socket} its name",
		"The caller of restart binds the name itself, with its own rights, and the directory must be there.",
		"See the cause at the end of the line."},
	{UnixConnected, 0, "cannot connect {a unix socket} again",
		"The socket was made, but the kernel refused to connect it as it was.",
		"See the cause at the end of the line."},
	{UnixSent, 0, "cannot put what was on its way into {a unix socket} again",
		"Each message is sent once more by the caller of restart, with its own rights and within its own limits.",
		"See the cause at the end of the line; EPERM says that the message has the credentials of another user, EAGAIN that the limits of this host are lower."},
	{UnixOption, 0, "cannot set an option of {a unix socket} as it was",
		"Buffers above net.core.wmem_max and rmem_max, and some priorities, take CAP_NET_ADMIN.",
		"Raise the limits of this host, or restart as root."},
}
