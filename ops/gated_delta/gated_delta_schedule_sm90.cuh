/* SPDX-License-Identifier: Apache-2.0 */
/* The list of segments: sequences of more than segment_chunks chunks are cut after every so many. */
#ifndef GATED_DELTA_SCHEDULE_SM90_CUH
#define GATED_DELTA_SCHEDULE_SM90_CUH

#include "gated_delta_sm90.cuh"

enum { LENGTHS = 4 }; /* classes of lengths, each half as long as the one before */

/* Of lane l: the first + l-th sequence, and sums over the sequences before it. */
struct span {
    int sequence, chunks, cuts, last; /* last: chunks of the last segment */
    int tile, cut;
    bool real;
};

/* The sums of all sequences before `first`, carried on from call to call. */
DEVICE struct span next_span(const struct gated_delta_sm90_args &p, int first, int &tiles, int &cuts)
{
    struct span s;
    s.sequence = first + lane_id();
    s.real = s.sequence < p.a.num_sequences;
    s.chunks = chunks_of(p.a, s.sequence);
    s.cuts = s.chunks ? (s.chunks - 1) / p.segment_chunks : 0;
    s.last = s.chunks - s.cuts * p.segment_chunks;
    int tile = s.chunks, cut = s.cuts;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        int a = __shfl_up_sync(0xffffffffu, tile, step), b = __shfl_up_sync(0xffffffffu, cut, step);
        tile += lane_id() >= step ? a : 0;
        cut += lane_id() >= step ? b : 0;
    }
    s.tile = tiles + tile - s.chunks;
    s.cut = cuts + cut - s.cuts;
    tiles += __shfl_sync(0xffffffffu, tile, 31);
    cuts += __shfl_sync(0xffffffffu, cut, 31);
    return s;
}

DEVICE void write_segment(const struct gated_delta_sm90_args &p, int at, const struct span &s, int piece)
{
    int64_t begin = sequence_begin(&p.a, s.sequence) + (int64_t)piece * p.segment_chunks * CHUNK;
    bool ends = piece == s.cuts;
    struct gated_delta_segment x = {s.sequence, (int)begin, p.segment_chunks * CHUNK, piece * p.segment_chunks,
                                    s.tile + piece * p.segment_chunks, s.cut + piece, ends, 0};
    if (ends)
        x.length = (int)(sequence_begin(&p.a, s.sequence + 1) - begin);
    p.segments[at] = x;
}

/* Whether half of the values at a time pay: if the segment takes longer than the whole machine for all of them, by half. */
DEVICE bool is_halved(const struct gated_delta_sm90_args &p, const struct span &s, int tiles)
{
    return p.halves == 1 || s.cuts || (int64_t)s.last * 2 * p.multiprocessors > (int64_t)tiles * p.a.num_heads * 3;
}

/* The last segments of sequences, by their class: halved ones first, the longest first. begin: of each class, where the next one
 * is written; 0 at first, and nothing is written but the classes are counted. */
DEVICE void sort_segments(const struct gated_delta_sm90_args &p, int (&begin)[2 * LENGTHS], int longest, int all, bool write)
{
    int tiles = 0, cuts = 0;
    for (int first = 0; first < p.a.num_sequences; first += 32) {
        struct span s = next_span(p, first, tiles, cuts);
        int own = min(__clz(s.last) - __clz(longest), LENGTHS - 1) + (is_halved(p, s, all) ? 0 : LENGTHS);
#pragma unroll
        for (int i = 0; i < 2 * LENGTHS; i++) {
            uint32_t those = __ballot_sync(0xffffffffu, s.real && own == i);
            if (write && s.real && own == i)
                write_segment(p, begin[i] + __popc(those & ((1u << lane_id()) - 1)), s, s.cuts);
            begin[i] += __popc(those);
        }
    }
}

/* By a whole warp. Segment number c < num_cuts is the one before cut c. */
DEVICE void make_schedule(const struct gated_delta_sm90_args &p)
{
    int tiles = 0, cuts = 0, longest = 1, begin[2 * LENGTHS] = {};
    for (int first = 0; first < p.a.num_sequences; first += 32) {
        struct span s = next_span(p, first, tiles, cuts);
        longest = max(longest, __reduce_max_sync(0xffffffffu, s.last));
        for (int i = 0; i < s.cuts; i++)
            write_segment(p, s.cut + i, s, i);
    }
    int sum = cuts, halved = 0;
#pragma unroll 1
    for (int write = 0; write < 2; write++) {
        sort_segments(p, begin, longest, tiles, write);
#pragma unroll
        for (int i = 0; i < 2 * LENGTHS && !write; i++) {
            int count = begin[i];
            halved = i == LENGTHS ? sum : halved;
            begin[i] = sum;
            sum += count;
        }
    }
    if (lane_id() == 0)
        *p.schedule = {sum, cuts, halved, 0};
}

#endif
