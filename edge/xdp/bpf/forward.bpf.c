// Forwards RTP streams that need no processing. Everything else goes up unchanged (XDP_PASS), and
// nothing of a stream's state changes then. Layouts are mirrored in src/layout.rs.
//
// The arithmetic is that of RFC 3550 A.1, A.3, A.8 as user space does it, so that a stream can
// move between both at any packet.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <stddef.h>

#define INLINE static __always_inline
#define VOLATILE(x) (*(volatile typeof(x) *)&(x))

#define LOCK_BUSY 1
#define LOCK_OFF 2
// Added to the word on release: clears BUSY, keeps OFF, moves the count on.
#define LOCK_RELEASE 3
#define LOCK_TRIES 16

// RFC 3550 A.1, MAX_DROPOUT and MAX_MISORDER.
#define STEP_AHEAD_MAX 3000
#define STEP_BACK_MAX 100

#define HOP_REDIRECT 1

#define DONT_FRAGMENT 0x4000
#define FRAGMENT_MASK 0x3fff
#define TIME_TO_LIVE 64

// Fixed by the map flags of the user side; sizes are set at load.
#define MMAPABLE (1U << 10)

struct rtp {
	__u8 first;
	__u8 marker_type;
	__be16 seq;
	__be32 timestamp;
	__be32 ssrc;
} __attribute__((packed));

// What arrives at an own address is found by a tag of 32 bits: a mark that no empty slot has, a hash of
// the address, and the port. The whole address is compared afterwards. A bucket is a cache line;
// where it is full, its neighbour takes the rest.
#define TAG_USED (1U << 31)
#define HASH_FACTOR 0x9e3779b1U
#define BUCKET_SLOTS 8

struct bucket {
	__u64 slots[BUCKET_SLOTS]; // tag << 32 | place; 0: empty
};

// How far down the bits of a hash are that number the buckets; set at load.
const volatile __u32 bucket_shift = 31;

// One direction of a call: what arrives at `local` from `peer` leaves from `out_local` to `out_peer`.
// In the order in which it is needed: a packet over IPv4 that comes in its turn needs three of the four
// cache lines.
struct stream {
	__u64 lock;
	__be32 local;
	__be32 peer;
	__be32 out_local;
	__be32 out_peer;
	__be16 local_port;
	__u16 version;
	__be16 peer_port;
	__be16 out_local_port;
	__be16 out_peer_port;
	__u8 payload_type_in;
	__u8 payload_type_out;
	__be32 ssrc_in;
	__be32 ssrc_out;
	__u32 timestamp_offset;
	__u16 seq_offset;
	__u8 traffic_class;
	__u8 reserved;
	__u32 hop;
	__u32 unit_ns;
	__u32 break_units;
	__u64 clock_zero_ns;
	// From here on written by this program, but for limits and addresses.
	__u64 floor;
	__u64 highest;
	__u64 window;
	__u64 packets;
	__u64 payload_bytes;
	__u64 last_ns;
	__u64 gap_ns_max;
	__u64 first_ns;
	__u32 jitter_q4;
	__u32 jitter_units_max;
	__u32 transit_in;
	__u32 transit_in_known;
	__u32 timestamp_last;
	__u32 timestamp_highest_in;
	__u32 timestamp_highest_out;
	__u32 timestamp_last_out;
	__u32 transit_out;
	__u32 frame_units;
	__u32 frame_units_max;
	__u32 jitter_break_units;
	// What the checksums change by for all that a stream replaces by the same each time.
	__u32 ip_sum;
	__u32 udp_sum;
	__u64 duplicates;
	__u64 reordered;
	// The rest of IPv6 addresses.
	__be32 local_rest[3];
	__be32 peer_rest[3];
	__be32 out_local_rest[3];
	__be32 out_peer_rest[3];
} __attribute__((aligned(64)));

_Static_assert(offsetof(struct stream, clock_zero_ns) == 64, "second line");
_Static_assert(offsetof(struct stream, first_ns) == 128, "third line");
_Static_assert(offsetof(struct stream, duplicates) == 192, "fourth line");
_Static_assert(sizeof(struct stream) == 256, "four lines");

struct hop {
	__u64 version; // 0: not to be used
	__u32 interface;
	__u16 flags;
	__u16 mtu;
	__u8 destination[ETH_ALEN];
	__u8 source[ETH_ALEN];
	__u32 reserved;
};

enum counter {
	FORWARDED,
	UP_BUSY,
	UP_WITHDRAWN,
	UP_SOURCE,
	UP_SHAPE,
	UP_PAYLOAD_TYPE,
	UP_SSRC,
	UP_SEQUENCE,
	UP_TIMESTAMP,
	UP_NO_HOP,
	COUNTERS,
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, MMAPABLE);
	__type(key, __u32);
	__type(value, struct bucket);
} places SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, MMAPABLE);
	__type(key, __u32);
	__type(value, struct stream);
} streams SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, MMAPABLE);
	__type(key, __u32);
	__type(value, struct hop);
} hops SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

INLINE void count(__u32 which)
{
	__u64 *value = bpf_map_lookup_elem(&counters, &which);

	if (value)
		*value += 1;
}

INLINE int up(__u32 cause)
{
	count(cause);
	return XDP_PASS;
}

// One's complement sums (RFC 1624), in the byte order of the packet.
INLINE void replace(__u64 *sum, __u32 old, __u32 new)
{
	*sum += (__u32)~old;
	*sum += new;
}

INLINE __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~(__u16)sum;
}

INLINE __u32 distance(__s32 difference)
{
	return difference < 0 ? -difference : difference;
}

// True with the lock held; nobody else touches the stream until it is released.
INLINE int acquire(struct stream *s, __u32 *cause)
{
	for (int n = 0; n < LOCK_TRIES; n++) {
		__u64 word = VOLATILE(s->lock);

		if (word & LOCK_OFF) {
			*cause = UP_WITHDRAWN;
			return 0;
		}
		if (!(word & LOCK_BUSY) &&
		    __sync_val_compare_and_swap(&s->lock, word, word | LOCK_BUSY) == word)
			return 1;
	}
	*cause = UP_BUSY;
	return 0;
}

INLINE void release(struct stream *s)
{
	__sync_fetch_and_add(&s->lock, LOCK_RELEASE);
}

INLINE void note_jitter(struct stream *s, __u32 timestamp, __u32 units)
{
	__u32 transit = units - timestamp;

	if (s->transit_in_known) {
		// Packets that share a timestamp say nothing about transit time.
		if (timestamp == s->timestamp_last)
			return;
		__u32 d = distance((__s32)(transit - s->transit_in));

		// A pause or a new time base is not jitter.
		if (d < s->jitter_break_units) {
			__u32 jitter = s->jitter_q4;

			jitter = jitter + d - ((jitter + 8) >> 4);
			s->jitter_q4 = jitter;
			if (jitter >> 4 > s->jitter_units_max)
				s->jitter_units_max = jitter >> 4;
		}
	}
	s->timestamp_last = timestamp;
	s->transit_in = transit;
	s->transit_in_known = 1;
}

// The packet is the furthest of its stream.
INLINE void note_ahead(struct stream *s, __s32 step_packets, __u32 timestamp, __u32 out, __u32 units)
{
	__s32 step = (__s32)(timestamp - s->timestamp_highest_in);

	s->highest += step_packets;
	s->window = step_packets < 64 ? s->window << step_packets | 1 : 1;
	if (step > 0) {
		if (step_packets == 1 && (__u32)step <= s->frame_units_max)
			s->frame_units = step;
		s->timestamp_highest_in = timestamp;
	}
	if ((__s32)(out - s->timestamp_highest_out) > 0) {
		__s32 change = (__s32)(units - out - s->transit_out);

		s->timestamp_highest_out = out;
		// Division by 16 towards zero.
		s->transit_out += (change + ((change >> 31) & 15)) >> 4;
	}
}

INLINE void note(struct stream *s, __s32 step, __u32 timestamp, __u32 out, __u32 units, __u64 now,
		 __u32 payload_bytes)
{
	s->packets += 1;
	s->payload_bytes += payload_bytes;
	if (s->last_ns == 0) {
		s->first_ns = now;
	} else {
		// Two processors may look at the clock in the other order.
		__u64 gap = now > s->last_ns ? now - s->last_ns : 0;

		if (gap > s->gap_ns_max)
			s->gap_ns_max = gap;
	}
	s->last_ns = now;
	s->timestamp_last_out = out;
	if (step > 0) {
		note_ahead(s, step, timestamp, out, units);
	} else {
		__u32 back = -step;
		__u64 bit = back < 64 ? 1ULL << back : 0;

		if (s->window & bit) {
			s->duplicates += 1;
			return;
		}
		s->window |= bit;
		s->reordered += 1;
	}
	note_jitter(s, timestamp, units);
}

INLINE void rewrite_ipv4(struct iphdr *ip, struct stream *s)
{
	__u64 sum = (__u64)(__u16)~ip->check + s->ip_sum;
	__be32 *words = (__be32 *)ip;
	__be32 before[3] = { words[0], words[1], words[2] };

	ip->tos = s->traffic_class;
	ip->frag_off = bpf_htons(DONT_FRAGMENT);
	ip->ttl = TIME_TO_LIVE;
	replace(&sum, before[0], words[0]);
	replace(&sum, before[1], words[1]);
	// The check itself is zero in the sum.
	replace(&sum, before[2] & bpf_htonl(0xffff0000), words[2] & bpf_htonl(0xffff0000));
	ip->saddr = s->out_local;
	ip->daddr = s->out_peer;
	ip->check = fold(sum);
}

INLINE void rewrite_ipv6(struct ipv6hdr *ip, struct stream *s)
{
	*(__be32 *)ip = bpf_htonl(6U << 28 | (__u32)s->traffic_class << 20);
	ip->hop_limit = TIME_TO_LIVE;
	ip->saddr.in6_u.u6_addr32[0] = s->out_local;
	ip->daddr.in6_u.u6_addr32[0] = s->out_peer;
	for (int n = 0; n < 3; n++) {
		ip->saddr.in6_u.u6_addr32[n + 1] = s->out_local_rest[n];
		ip->daddr.in6_u.u6_addr32[n + 1] = s->out_peer_rest[n];
	}
}

INLINE void rewrite_udp(struct udphdr *udp, struct rtp *rtp, struct stream *s, __u32 out)
{
	__be32 *words = (__be32 *)rtp;
	__be32 first_before = words[0], timestamp_before = words[1];

	udp->source = s->out_local_port;
	udp->dest = s->out_peer_port;
	rtp->marker_type = (rtp->marker_type & 0x80) | s->payload_type_out;
	rtp->seq = bpf_htons(bpf_ntohs(rtp->seq) + s->seq_offset);
	rtp->timestamp = bpf_htonl(out);
	rtp->ssrc = s->ssrc_out;
	if (!udp->check)
		return; // none is allowed with IPv4
	__u64 sum = (__u64)(__u16)~udp->check + s->udp_sum;

	replace(&sum, first_before, words[0]);
	replace(&sum, timestamp_before, words[1]);
	__u16 check = fold(sum);
	udp->check = check ? check : 0xffff;
}

// With the lock held. The cause why the packet goes up, or FORWARDED.
INLINE __u32 forward_locked(struct xdp_md *ctx, struct ethhdr *eth, struct iphdr *ip4,
			    struct ipv6hdr *ip6, struct udphdr *udp, struct rtp *rtp,
			    struct stream *s, int *action)
{
	// The place may have got another stream since it was looked up.
	if (udp->dest != s->local_port || (ip4 ? 4 : 6) != s->version ||
	    udp->source != s->peer_port)
		return UP_SOURCE;
	for (int n = 0; n < (ip4 ? 1 : 4); n++) {
		__be32 source = ip4 ? ip4->saddr : ip6->saddr.in6_u.u6_addr32[n];
		__be32 destination = ip4 ? ip4->daddr : ip6->daddr.in6_u.u6_addr32[n];

		if (destination != (n ? s->local_rest[n - 1] : s->local) ||
		    source != (n ? s->peer_rest[n - 1] : s->peer))
			return UP_SOURCE;
	}
	// No padding, extension or contributing sources.
	if (rtp->first != 0x80)
		return UP_SHAPE;
	if ((rtp->marker_type & 0x7f) != s->payload_type_in)
		return UP_PAYLOAD_TYPE;
	if (rtp->ssrc != s->ssrc_in)
		return UP_SSRC;
	__s32 step = (__s16)(bpf_ntohs(rtp->seq) - (__u16)s->highest);

	if (step > STEP_AHEAD_MAX || step < -STEP_BACK_MAX || s->highest + step <= s->floor)
		return UP_SEQUENCE;
	__u64 now = bpf_ktime_get_ns() - s->clock_zero_ns;
	// Never zero; the verifier wants to see it.
	__u32 units = now / (s->unit_ns ? s->unit_ns : 1);
	__u32 timestamp = bpf_ntohl(rtp->timestamp);
	__u32 out = timestamp + s->timestamp_offset;

	if (distance((__s32)(out - (units - s->transit_out))) > s->break_units)
		return UP_TIMESTAMP;
	__u32 place = s->hop;
	struct hop *hop = bpf_map_lookup_elem(&hops, &place);

	if (!hop)
		return UP_NO_HOP;
	__u64 version = VOLATILE(hop->version);
	__u32 interface = VOLATILE(hop->interface);
	__u16 udp_bytes = bpf_ntohs(udp->len);
	__u32 ip_bytes = udp_bytes + (ip4 ? sizeof(*ip4) : sizeof(*ip6));

	if (!version || ip_bytes > hop->mtu ||
	    (interface != ctx->ingress_ifindex && !(hop->flags & HOP_REDIRECT)))
		return UP_NO_HOP;
	struct ethhdr addresses;

	__builtin_memcpy(addresses.h_dest, hop->destination, ETH_ALEN);
	__builtin_memcpy(addresses.h_source, hop->source, ETH_ALEN);
	if (VOLATILE(hop->version) != version)
		return UP_NO_HOP;
	__builtin_memcpy(eth, &addresses, 2 * ETH_ALEN);
	note(s, step, timestamp, out, units, now, udp_bytes - sizeof(*udp) - sizeof(*rtp));
	if (ip4)
		rewrite_ipv4(ip4, s);
	else
		rewrite_ipv6(ip6, s);
	rewrite_udp(udp, rtp, s, out);
	*action = interface == ctx->ingress_ifindex ? XDP_TX : bpf_redirect(interface, 0);
	return FORWARDED;
}

// As `tag` in src/layout.rs.
INLINE __u32 tag_of(__u32 address, __be16 port, __u32 version)
{
	__u32 hash = (address ^ version) * HASH_FACTOR;

	return TAG_USED | hash >> 17 << 16 | port;
}

// In the order of `slots` in src/places.rs.
INLINE struct stream *find(__u32 tag)
{
	__u32 first = (tag ^ tag >> 15) * HASH_FACTOR >> bucket_shift;

	for (__u32 side = 0; side < 2; side++) {
		__u32 at = first ^ side;
		struct bucket *bucket = bpf_map_lookup_elem(&places, &at);

		if (!bucket)
			return 0;
		for (int n = 0; n < BUCKET_SLOTS; n++) {
			__u64 slot = VOLATILE(bucket->slots[n]);

			if (slot >> 32 == tag) {
				__u32 place = slot;

				return bpf_map_lookup_elem(&streams, &place);
			}
		}
	}
	return 0;
}

INLINE int forward_udp(struct xdp_md *ctx, struct ethhdr *eth, struct iphdr *ip4,
		       struct ipv6hdr *ip6, struct udphdr *udp, struct rtp *rtp)
{
	__u32 address, cause;
	int action = XDP_PASS;

	if (ip4)
		address = ip4->daddr;
	else
		address = ip6->daddr.in6_u.u6_addr32[0] ^ ip6->daddr.in6_u.u6_addr32[1] ^
			  ip6->daddr.in6_u.u6_addr32[2] ^ ip6->daddr.in6_u.u6_addr32[3];
	struct stream *s = find(tag_of(address, udp->dest, ip4 ? 4 : 6));

	if (!s)
		return XDP_PASS;
	// All of a stream's memory is asked for before the lock, which would wait for it in turn.
	(void)VOLATILE(s->clock_zero_ns);
	(void)VOLATILE(s->first_ns);
	if (!acquire(s, &cause))
		return up(cause);
	cause = forward_locked(ctx, eth, ip4, ip6, udp, rtp, s, &action);
	release(s);
	count(cause);
	return action;
}

SEC("xdp") int forward(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;

	if ((void *)(eth + 1) > end)
		return XDP_PASS;
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = (void *)(eth + 1);
		struct udphdr *udp = (void *)(ip + 1);
		struct rtp *rtp = (void *)(udp + 1);

		if ((void *)(rtp + 1) > end)
			return XDP_PASS;
		__u32 bytes = bpf_ntohs(ip->tot_len), udp_bytes = bpf_ntohs(udp->len);

		// Options, fragments, and lengths that do not fit are for the kernel to judge.
		if (*(__u8 *)ip != 0x45 || ip->protocol != IPPROTO_UDP ||
		    ip->frag_off & bpf_htons(FRAGMENT_MASK) || bytes != udp_bytes + sizeof(*ip) ||
		    udp_bytes < sizeof(*udp) + sizeof(*rtp) || (void *)ip + bytes > end)
			return XDP_PASS;
		return forward_udp(ctx, eth, ip, 0, udp, rtp);
	}
	if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = (void *)(eth + 1);
		struct udphdr *udp = (void *)(ip + 1);
		struct rtp *rtp = (void *)(udp + 1);

		if ((void *)(rtp + 1) > end)
			return XDP_PASS;
		__u32 udp_bytes = bpf_ntohs(udp->len);

		if (ip->version != 6 || ip->nexthdr != IPPROTO_UDP ||
		    bpf_ntohs(ip->payload_len) != udp_bytes || !udp->check ||
		    udp_bytes < sizeof(*udp) + sizeof(*rtp) || (void *)udp + udp_bytes > end)
			return XDP_PASS;
		return forward_udp(ctx, eth, 0, ip, udp, rtp);
	}
	return XDP_PASS;
}

char permission[] SEC("license") = "MIT";
