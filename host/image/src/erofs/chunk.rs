//! How a sparse file is cut into chunks, of which only those with data are stored.

use super::BLOCK;
use crate::tree::Extent;

/// Most chunks that a sparse file is cut into; chunks grow beyond that (4 MiB of addresses).
const CHUNKS_MAX: u64 = 1 << 20;

/// Bytes of addresses that a sparse file of this size has beside its inode.
pub(crate) fn map_len(size: u64) -> u64 {
    size.div_ceil(BLOCK << bits(size)).saturating_mul(4)
}

/// A chunk of a file of this size has `BLOCK << bits` bytes.
pub(crate) fn bits(size: u64) -> u8 {
    (0..31).find(|bits| size.div_ceil(BLOCK << bits) <= CHUNKS_MAX).unwrap_or(31)
}

/// Numbers of the chunks that hold data, ascending.
pub(crate) fn with_data(runs: &[Extent], bits: u8) -> impl Iterator<Item = u64> {
    let chunk = BLOCK << bits;
    let mut next = 0;
    runs.iter().flat_map(move |run| {
        let first = (run.offset / chunk).max(next);
        let end = run.offset.saturating_add(run.len).div_ceil(chunk).max(first);
        next = end;
        first..end
    })
}

/// Blocks of one chunk: fewer in the last one of a file.
pub(crate) fn blocks(size: u64, bits: u8, chunk: u64) -> u64 {
    let left = size.saturating_sub(chunk.saturating_mul(BLOCK << bits));
    left.min(BLOCK << bits).div_ceil(BLOCK)
}

/// Blocks of all chunks that hold data.
pub(crate) fn data_blocks(size: u64, runs: &[Extent]) -> u64 {
    let bits = bits(size);
    // A run covers many chunks: they are counted, not walked through.
    let mut next = 0;
    let mut sum = 0_u64;
    for run in runs {
        let first = (run.offset >> bits) / BLOCK;
        let end = run.offset.saturating_add(run.len).div_ceil(BLOCK << bits);
        let first = first.max(next);
        if end > first {
            let whole = (end - first - 1).saturating_mul(1 << bits);
            sum = sum.saturating_add(whole).saturating_add(blocks(size, bits, end - 1));
            next = end;
        }
    }
    sum
}

/// Each run and where its bytes lie among the chunks with data, in bytes from the first one.
pub(crate) fn places(size: u64, runs: &[Extent]) -> impl Iterator<Item = (Extent, u64)> {
    let chunk = BLOCK << bits(size);
    // Chunks with data before `next`.
    let (mut next, mut count) = (0_u64, 0_u64);
    runs.iter().map(move |run| {
        let first = run.offset / chunk;
        let end = run.offset.saturating_add(run.len).div_ceil(chunk);
        // Only the last chunk of the run before can be shared.
        let index = if first < next { count.saturating_sub(1) } else { count };
        count = count.saturating_add(end.saturating_sub(first.max(next)));
        next = next.max(end);
        (*run, index.saturating_mul(chunk).saturating_add(run.offset % chunk))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(offset: u64, len: u64) -> Extent {
        Extent { offset, len }
    }

    #[test]
    fn chunks_are_counted_once_however_runs_share_them() {
        let runs = [run(0, 1), run(10, 4096), run(5 * 4096, 1), run(5 * 4096 + 7, 1)];
        assert_eq!(with_data(&runs, 0).collect::<Vec<_>>(), [0, 1, 5]);
        assert_eq!(with_data(&runs, 2).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(blocks(5 * 4096 + 8, 0, 5), 1);
        assert_eq!(blocks(5 * 4096 + 8, 2, 1), 2);
        assert_eq!(blocks(5 * 4096 + 8, 2, 0), 4);
        assert_eq!(data_blocks(5 * 4096 + 8, &runs), 3);
        assert_eq!(places(5 * 4096 + 8, &runs).map(|(_, at)| at).collect::<Vec<_>>(), [0, 10, 8192, 8199]);
    }

    #[test]
    fn counting_and_walking_agree() {
        for size in [3 << 20, (9 << 30) + 5, 1 << 43] {
            let runs = [run(0, 5), run(4097, 3), run(70_000, 900_000), run(size / 2, 8192), run(size - 1, 1)];
            let bits = bits(size);
            let walked: u64 = with_data(&runs, bits).map(|chunk| blocks(size, bits, chunk)).sum();
            assert_eq!(data_blocks(size, &runs), walked);
            let chunks: Vec<u64> = with_data(&runs, bits).collect();
            for (run, at) in places(size, &runs) {
                let chunk = BLOCK << bits;
                let index = chunks.iter().position(|number| *number == run.offset / chunk).unwrap() as u64;
                assert_eq!(at, index * chunk + run.offset % chunk);
            }
        }
    }

    #[test]
    fn a_huge_file_has_larger_chunks_instead_of_a_huge_map() {
        assert_eq!(bits(1), 0);
        assert_eq!(bits(4 << 30), 0);
        assert_eq!(bits((4 << 30) + 1), 1);
        assert_eq!(bits(16 << 40), 12);
    }
}
