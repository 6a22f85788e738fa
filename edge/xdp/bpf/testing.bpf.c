// For the far ends of tests and benches.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} sunk SEC(".maps");

// Microseconds from the time in a frame to now; the last place has all that is longer.
#define DELAYS 4096

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, DELAYS);
	__type(key, __u32);
	__type(value, __u64);
} delays SEC(".maps");

// Ethernet, IPv4, UDP, RTP.
#define TIME_AT 54
// Of frames without a time.
#define NO_TIME 0x5555555555555555ULL

// A virtual interface takes redirected frames only if its other end has a program.
SEC("xdp") int pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}

static __always_inline void note_delay(__u64 sent)
{
	__u64 delay_us = (bpf_ktime_get_ns() - sent) / 1000;
	__u32 place = delay_us < DELAYS ? delay_us : DELAYS - 1;
	__u64 *value = bpf_map_lookup_elem(&delays, &place);

	if (value)
		__sync_fetch_and_add(value, 1);
}

// Counts and discards what is long enough to be media.
SEC("xdp") int sink(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 place = 0;
	__u64 *value;

	if (data + 150 > end)
		return XDP_PASS;
	value = bpf_map_lookup_elem(&sunk, &place);
	if (value)
		*value += 1;
	__u64 sent = *(__u64 *)(data + TIME_AT);

	if (sent != NO_TIME)
		note_delay(sent);
	return XDP_DROP;
}

char permission[] SEC("license") = "MIT";
