//! Counts the cells of the KV cache exactly, although sequences share them.
//!
//! A sequence is a path of segments; a segment belongs to all sequences whose paths have it. llama.cpp tells only
//! when a batch finds no room, which is too late to decide whom to admit.

struct Segment {
    length: u32,
    owners: u32,
}

/// The cells of all sequences.
pub(crate) struct Cells {
    segments: Vec<Segment>,
    paths: Vec<Vec<usize>>,
}

impl Cells {
    pub(crate) fn new(sequences: usize) -> Self {
        Self {
            segments: Vec::new(),
            paths: vec![Vec::new(); sequences],
        }
    }

    /// Cells in use.
    pub(crate) fn used(&self) -> u32 {
        self.segments
            .iter()
            .filter(|s| s.owners > 0)
            .map(|s| s.length)
            .sum()
    }

    /// Cells that at least one of these sequences uses.
    pub(crate) fn used_by(&self, sequences: impl Iterator<Item = usize>) -> u32 {
        let mut seen = vec![false; self.segments.len()];
        let mut sum = 0;
        for segment in sequences.flat_map(|s| &self.paths[s]) {
            if !std::mem::replace(&mut seen[*segment], true) {
                sum += self.segments[*segment].length;
            }
        }
        sum
    }

    /// Sets the length of a sequence: cuts it, or adds cells of its own.
    pub(crate) fn set_length(&mut self, sequence: usize, length: u32) {
        let mut at = 0;
        let mut index = 0;
        while let Some(&segment) = self.paths[sequence].get(index) {
            let end = at + self.segments[segment].length;
            if end > length {
                if at < length {
                    self.split(segment, length - at);
                    index += 1;
                }
                let rest: Vec<usize> = self.paths[sequence].drain(index..).collect();
                for segment in rest {
                    self.segments[segment].owners -= 1;
                }
                return;
            }
            at = end;
            index += 1;
        }
        if at == length {
            return;
        }
        match self.paths[sequence].last() {
            Some(&last) if self.segments[last].owners == 1 => {
                self.segments[last].length += length - at
            }
            _ => {
                let new = self.free_segment();
                self.segments[new] = Segment {
                    length: length - at,
                    owners: 1,
                };
                self.paths[sequence].push(new);
            }
        }
    }

    /// Makes the empty sequence `to` own the first `length` cells of `from` too.
    pub(crate) fn share(&mut self, from: usize, to: usize, length: u32) {
        let mut at = 0;
        let mut index = 0;
        while at < length {
            let Some(&segment) = self.paths[from].get(index) else {
                return;
            };
            if at + self.segments[segment].length > length {
                self.split(segment, length - at);
            }
            at += self.segments[segment].length;
            self.segments[segment].owners += 1;
            self.paths[to].push(segment);
            index += 1;
        }
    }

    fn split(&mut self, segment: usize, at: u32) {
        let tail = self.free_segment();
        let (length, owners) = (self.segments[segment].length, self.segments[segment].owners);
        self.segments[tail] = Segment {
            length: length - at,
            owners,
        };
        self.segments[segment].length = at;
        for path in &mut self.paths {
            if let Some(index) = path.iter().position(|s| *s == segment) {
                path.insert(index + 1, tail);
            }
        }
    }

    fn free_segment(&mut self) -> usize {
        if let Some(index) = self.segments.iter().position(|s| s.owners == 0) {
            return index;
        }
        self.segments.push(Segment {
            length: 0,
            owners: 0,
        });
        self.segments.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The model: every cell has a number, a sequence is a list of numbers.
        #[test]
        fn counts_as_if_each_cell_had_a_number(
            steps in proptest::collection::vec((0_usize..4, 0_usize..4, 0_u32..30, any::<bool>()), 1..60)
        ) {
            let mut cells = Cells::new(4);
            let mut model: Vec<Vec<u32>> = vec![Vec::new(); 4];
            let mut next = 0;
            for (from, to, length, share) in steps {
                if share {
                    if from != to && model[to].is_empty() {
                        let length = (length as usize).min(model[from].len());
                        model[to] = model[from][..length].to_vec();
                        cells.share(from, to, u32::try_from(length).unwrap());
                    }
                } else {
                    model[from].truncate(length as usize);
                    while model[from].len() < length as usize {
                        model[from].push(next);
                        next += 1;
                    }
                    cells.set_length(from, length);
                }
                let distinct = |which: &[usize]| {
                    which.iter().flat_map(|s| &model[*s]).collect::<std::collections::HashSet<_>>().len()
                };
                prop_assert_eq!(cells.used() as usize, distinct(&[0, 1, 2, 3]));
                prop_assert_eq!(cells.used_by([1, 2].into_iter()) as usize, distinct(&[1, 2]));
            }
        }
    }
}
