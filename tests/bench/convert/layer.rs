//! A large layer like those of real images: most files are small, most bytes are in large ones, and they compress by
//! about half. The same bytes every time.

use std::io::{self, Write};

use husk_tests::layer::{Layer, Meta};

/// Words of the texts.
const VOCABULARY: usize = 4096;
/// Files in one directory.
const DIRECTORY: u32 = 100;

/// Writes a layer of `files` regular files with about `bytes` bytes together.
pub(super) fn write(out: impl Write, bytes: u64, files: u32) -> io::Result<()> {
    let mut dice = fastrand::Rng::with_seed(1);
    let weights: Vec<f64> = (0..files).map(|_| weight(&mut dice)).collect();
    let scale = to_float(bytes) / weights.iter().sum::<f64>();
    let contents = Contents::new(&mut dice);
    let mut layer = Layer::new(out);
    let mut data = Vec::new();
    for (number, weight) in (0_u32..).zip(weights) {
        let directory = format!("usr/share/d{:03}", number / DIRECTORY);
        if number % DIRECTORY == 0 {
            layer.dir(&directory, Meta::mode(0o755))?;
        }
        contents.fill(&mut data, to_length(weight * scale), &mut dice);
        layer.file(format!("{directory}/file-{number:05}"), Meta::mode(0o644), &data)?;
    }
    layer.finish()?.flush()
}

/// Of a file's size beside others': about log-normal, so that the mean is some seven times the median.
fn weight(dice: &mut fastrand::Rng) -> f64 {
    let sum: f64 = (0..4).map(|_| dice.f64()).sum();
    (sum * 5.0).exp2()
}

#[expect(clippy::cast_precision_loss, reason = "sizes of files are far below 2^52")]
fn to_float(bytes: u64) -> f64 {
    bytes as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a file's size, not negative")]
fn to_length(bytes: f64) -> usize {
    bytes as usize
}

/// What files are made of.
struct Contents {
    words: Vec<Vec<u8>>,
    codes: Vec<[u8; 8]>,
}

impl Contents {
    fn new(dice: &mut fastrand::Rng) -> Self {
        let mut word = || {
            let mut word: Vec<u8> = (0..dice.usize(2..10)).map(|_| dice.u8(b'a'..=b'z')).collect();
            word.push(b' ');
            word
        };
        let words = (0..VOCABULARY).map(|_| word()).collect();
        let codes = (0..VOCABULARY).map(|_| dice.u64(..).to_le_bytes()).collect();
        Self { words, codes }
    }

    /// Text, something like machine code, or what is compressed already.
    fn fill(&self, data: &mut Vec<u8>, length: usize, dice: &mut fastrand::Rng) {
        data.clear();
        match dice.u8(..20) {
            0..9 => {
                while data.len() < length {
                    // Some words are much more frequent than others.
                    let rank = dice.usize(..VOCABULARY) * dice.usize(..VOCABULARY) / VOCABULARY;
                    data.extend(self.words.get(rank).into_iter().flatten());
                }
            }
            9..17 => {
                while data.len() < length {
                    let rank = dice.usize(..VOCABULARY) * dice.usize(..VOCABULARY) / VOCABULARY;
                    data.extend(self.codes.get(rank).into_iter().flatten());
                    data.extend(dice.u16(..).to_le_bytes());
                }
            }
            _ => {
                data.resize(length, 0);
                dice.fill(data);
            }
        }
        data.truncate(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layer_is_the_same_every_time_and_as_large_as_was_asked() {
        let write = || {
            let mut out = Vec::new();
            write(&mut out, 1 << 20, 200).unwrap();
            out
        };
        let layer = write();
        assert!(layer == write());
        let mut archive = tar::Archive::new(&layer[..]);
        let sizes: Vec<u64> = archive.entries().unwrap().map(|entry| entry.unwrap().size()).collect();
        assert_eq!(sizes.len(), 202);
        let sum: u64 = sizes.iter().sum();
        assert!(sum.abs_diff(1 << 20) < 1000, "{sum}");
    }
}
