// For the far ends of tests and benches.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} sunk SEC(".maps");

// A virtual interface takes redirected frames only if its other end has a program.
SEC("xdp") int pass(struct xdp_md *ctx)
{
	return XDP_PASS;
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
	return XDP_DROP;
}

char permission[] SEC("license") = "MIT";
