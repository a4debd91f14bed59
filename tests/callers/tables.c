/* Makes an empty table of nftables. */
#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct part {
	struct nlmsghdr head;
	struct nfgenmsg about;
	struct nlattr name;
	char text[4];
} batch[3];

static int add(int i, int type, int flags, int family, int resource, int named)
{
	struct part *p = &batch[i];

	p->head.nlmsg_len = named ? sizeof *p : NLMSG_LENGTH(sizeof p->about);
	p->head.nlmsg_type = type;
	p->head.nlmsg_flags = NLM_F_REQUEST | flags;
	p->about.nfgen_family = family;
	p->about.res_id = htons(resource);
	p->name.nla_len = sizeof p->name + 2;
	p->name.nla_type = NFTA_TABLE_NAME;
	memcpy(p->text, "t", 2);
	return p->head.nlmsg_len;
}

int main(void)
{
	struct { struct nlmsghdr head; int error; char rest[4096]; } answer;
	int lens[3], s = socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER);
	char all[sizeof batch], *end = all;

	lens[0] = add(0, NFNL_MSG_BATCH_BEGIN, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES, 0);
	lens[1] = add(1, NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_ACK, NFPROTO_IPV4, 0, 1);
	lens[2] = add(2, NFNL_MSG_BATCH_END, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES, 0);
	for (int i = 0; i < 3; i++)
		end = (char *)memcpy(end, &batch[i], lens[i]) + lens[i];
	if (s < 0 || send(s, all, end - all, 0) != end - all || recv(s, &answer, sizeof answer, 0) < (int)sizeof answer.head + 4 ||
	    answer.head.nlmsg_type != NLMSG_ERROR || answer.error) {
		fprintf(stderr, "nftables: %s\n", strerror(-answer.error));
		return 1;
	}
	return 0;
}
