package fault

import "golang.org/x/sys/unix"

// 1237: sockets cannot be saved; 2115: they cannot be made again.
const (
	SocketFilter    Code = 1237
	SocketPending   Code = 1238
	SocketNamespace Code = 1239
	SocketRaw       Code = 1240
	SocketFamily    Code = 1241
	SocketLayer     Code = 1242
	SocketUnsent    Code = 1243
	SocketOption    Code = 1244
	SocketNetlink   Code = 1245

	SocketAddress  Code = 2115
	SocketConnect  Code = 2116
	SocketState    Code = 2117
	ConnectionKeep Code = 2118
	SocketData     Code = 2119
	MPTCPKeep      Code = 2130
)

var sockets = []Entry{
	{SocketFilter, unix.EOPNOTSUPP, "cannot save {a descriptor}: socket with a packet filter",
		"What SO_ATTACH_BPF has attached cannot be read back from the kernel, and a filter that was read may have been locked.",
		"Have the program detach the filter first (SO_DETACH_FILTER)."},
	{SocketPending, unix.EOPNOTSUPP, "cannot save {a descriptor}: socket with data that only the kernel knows",
		"Answers that wait on a netlink socket, or a datagram that UDP_CORK holds back, cannot be put back into another socket.",
		"Have the program read or send what is waiting first; try again a moment later."},
	{SocketNamespace, unix.EOPNOTSUPP, "cannot save {a descriptor}: socket of another network namespace",
		"The program has it from, or made it in, another network namespace than its own, which may not exist after restart.",
		"Have the program close it first, or run it in that namespace."},
	{SocketRaw, unix.EOPNOTSUPP, "cannot save {a descriptor}: socket beside or below UDP and TCP",
		"A raw, packet, XDP or ping socket sees the traffic of others; its rings, filters and groups cannot be read back.",
		"Have the program close it first and open it anew afterwards."},
	{SocketFamily, unix.EOPNOTSUPP, "cannot save {a descriptor}: socket of this address family",
		"The state of the socket is that of a driver, a hypervisor or a protocol that the kernel does not let read back.",
		"Have the program close it first and open it anew afterwards; use UDP, TCP or a unix socket where the choice is yours."},
	{SocketLayer, unix.EOPNOTSUPP, "cannot save {a descriptor}: TCP socket with a protocol above or within TCP",
		"The keys and state of kernel TLS, SMC and the like cannot be read back.",
		"Switch the feature off in the program: most have an option to use plain TCP or TLS of their own."},
	{SocketUnsent, unix.EOPNOTSUPP, "cannot save {a descriptor}: connection within the program with data not yet sent",
		"What one end has written and the other has had no room for can be read with CAP_NET_ADMIN alone.",
		"Have the program read what is waiting first, run it with CAP_NET_ADMIN, or try again a moment later."},
	{SocketOption, unix.EOPNOTSUPP, "cannot save {a descriptor}: socket with an option that cannot be set again",
		"IP options and IPv6 extension headers of a socket are rare, need privilege, and are not saved.",
		"Have the program clear the option first."},
	{SocketNetlink, unix.EOPNOTSUPP, "cannot save {a descriptor}: netlink socket of a protocol that remembers its sockets",
		"Packet queues, audit, IPsec and the like are bound to the socket within the kernel, which does not tell.",
		"Have the program close it first and register anew afterwards."},

	{SocketAddress, 0, "cannot bind {a socket} of the image to its address",
		"Another program, or the caller itself, has the port; or the address is none of this host's any more; or the port is below 1024 and needs CAP_NET_BIND_SERVICE.",
		"See the cause at the end of the line, and find who has the port with ss -lntup. Connections of a server without SO_REUSEADDR hold its port for a minute after it was killed (TIME_WAIT)."},
	{SocketConnect, 0, "cannot connect {a socket} of the image again",
		"There is no route to the peer from here, or the loopback interface is down.",
		"See the cause at the end of the line; in a new network namespace: ip link set lo up."},
	{SocketState, 0, "cannot put back the options of {a socket}",
		"The kernel refuses the caller an option that the socket had, or gives it another value: a buffer above net.core.rmem_max or wmem_max, a mark, a priority, a device that is gone.",
		"Restart it with CAP_NET_ADMIN, or raise the limit that the cause names."},
	{ConnectionKeep, unix.EPERM, "cannot keep {a connection} of the image",
		"TCP_REPAIR takes CAP_NET_ADMIN, of the program when it is saved and of the caller when it is restarted.",
		"Restart with --tcp reset, so that the program sees its connections broken; or save and restart it with CAP_NET_ADMIN."},
	{SocketData, 0, "cannot put back the data that waited in {a socket}",
		"The socket buffers of this host are too small for what the program had not read yet.",
		"Raise net.core.rmem_max and net.ipv4.tcp_wmem, or restart with CAP_NET_ADMIN."},
	{MPTCPKeep, unix.EOPNOTSUPP, "cannot keep {a connection} of the image: it is one of MPTCP",
		"TCP_REPAIR, by which a connection goes on elsewhere, is there for plain TCP alone. A server that listens by MPTCP may keep those of clients that speak TCP.",
		"Restart with --tcp reset, so that the program sees its connections broken; or have it use TCP (GODEBUG=multipathtcp=0 for Go), then save it again."},
}
