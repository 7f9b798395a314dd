//! GNU tar's ways to store a sparse file: the old `S` header, and PAX formats 0.0, 0.1 and 1.0
//! (GNU tar manual, "Sparse Formats").

use std::io::Read;

use super::pax::number;
use super::tar::{BLOCK, TarProblem};

/// Runs of one file that are accepted; GNU tar writes one per hole.
const RUNS_MAX: usize = 1 << 18;

/// A run of stored bytes: offset in the file and length.
pub(super) type Run = (u64, u64);

/// The `GNU.sparse.*` records of a PAX header.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PaxSparse {
    major: u64,
    minor: u64,
    pub(super) name: Option<Vec<u8>>,
    size: Option<u64>,
    map: Vec<u64>,
}

impl PaxSparse {
    pub(super) fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarProblem> {
        match key {
            b"major" => self.major = number(value)?,
            b"minor" => self.minor = number(value)?,
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => self.size = Some(number(value)?),
            // 0.0 repeats these two; 0.1 has them in one list.
            b"offset" | b"numbytes" => self.push(number(value)?)?,
            b"map" => {
                for item in value.split(|byte| *byte == b',') {
                    self.push(number(item)?)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn push(&mut self, item: u64) -> Result<(), TarProblem> {
        if self.map.len() >= 2 * RUNS_MAX {
            return Err(TarProblem::Sparse("it has too many runs"));
        }
        self.map.push(item);
        Ok(())
    }

    /// The file's real size and its runs, if the header describes a sparse file. Format 1.0 keeps
    /// the map in front of the data: it is read from `data`, of which `stored` bytes are left.
    pub(super) fn runs(&self, data: &mut dyn Read, stored: &mut u64) -> Result<Option<(u64, Vec<Run>)>, TarProblem> {
        let Some(size) = self.size else { return Ok(None) };
        let runs = match (self.major, self.minor) {
            (0, _) => pairs(&self.map)?,
            (1, 0) => map_before_data(data, stored)?,
            _ => return Err(TarProblem::Sparse("its format is unknown")),
        };
        check(size, *stored, &runs)?;
        Ok(Some((size, runs)))
    }
}

fn pairs(map: &[u64]) -> Result<Vec<Run>, TarProblem> {
    let (pairs, []) = map.as_chunks::<2>() else { return Err(TarProblem::Sparse("its map has an odd length")) };
    Ok(pairs.iter().map(|[offset, len]| (*offset, *len)).collect())
}

/// Format 1.0: decimal lines, the count of runs first, padded to whole blocks.
fn map_before_data(data: &mut dyn Read, stored: &mut u64) -> Result<Vec<Run>, TarProblem> {
    const BAD: TarProblem = TarProblem::Sparse("its map is damaged");
    let mut numbers: Vec<u64> = Vec::new();
    let mut digits: Vec<u8> = Vec::new();
    let mut wanted = None;
    while wanted != Some(numbers.len()) {
        let mut block = [0; BLOCK];
        *stored = stored.checked_sub(BLOCK as u64).ok_or(BAD)?;
        data.read_exact(&mut block)?;
        for byte in block {
            if wanted == Some(numbers.len()) {
                break;
            }
            if byte != b'\n' {
                digits.push(byte);
                if digits.len() > 20 {
                    return Err(BAD);
                }
                continue;
            }
            let item = number(&digits)?;
            digits.clear();
            match wanted {
                Some(_) => numbers.push(item),
                None => {
                    let runs = usize::try_from(item).ok().filter(|runs| *runs <= RUNS_MAX).ok_or(BAD)?;
                    wanted = Some(2 * runs);
                }
            }
        }
    }
    pairs(&numbers)
}

/// The old GNU format: four runs in the header, more in blocks that follow it.
pub(super) fn old_gnu(header: &::tar::Header, data: &mut dyn Read, stored: u64) -> Result<(u64, Vec<Run>), TarProblem> {
    const BAD: TarProblem = TarProblem::Sparse("its map is damaged");
    let gnu = header.as_gnu().ok_or(TarProblem::Sparse("its header is not a GNU one"))?;
    let mut runs = Vec::new();
    let mut take = |sparse: &::tar::GnuSparseHeader| -> Result<(), TarProblem> {
        if sparse.is_empty() {
            return Ok(());
        }
        if runs.len() >= RUNS_MAX {
            return Err(TarProblem::Sparse("it has too many runs"));
        }
        runs.push((sparse.offset().map_err(|_| BAD)?, sparse.length().map_err(|_| BAD)?));
        Ok(())
    };
    for sparse in &gnu.sparse {
        take(sparse)?;
    }
    let mut more = gnu.is_extended();
    while more {
        let mut extension = ::tar::GnuExtSparseHeader::new();
        data.read_exact(extension.as_mut_bytes())?;
        for sparse in extension.sparse() {
            take(sparse)?;
        }
        more = extension.is_extended();
    }
    let size = gnu.real_size().map_err(|_| BAD)?;
    check(size, stored, &runs)?;
    Ok((size, runs))
}

/// Runs ascend, do not overlap, lie inside the file and are just what is stored.
fn check(size: u64, stored: u64, runs: &[Run]) -> Result<(), TarProblem> {
    let mut end = 0_u64;
    let mut sum = 0_u64;
    for (offset, len) in runs {
        if *offset < end {
            return Err(TarProblem::Sparse("its runs overlap"));
        }
        end = offset.checked_add(*len).ok_or(TarProblem::Sparse("a run is too long"))?;
        sum = sum.checked_add(*len).ok_or(TarProblem::Sparse("a run is too long"))?;
    }
    if end > size || sum != stored {
        return Err(TarProblem::Sparse("its map and its size disagree"));
    }
    Ok(())
}
