//! The nearest known word to one that is not known, for hints.

/// Edits (insert, delete, replace, swap of neighbours) between two words, cases ignored.
pub(crate) fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.to_lowercase().chars().collect();
    let right: Vec<char> = right.to_lowercase().chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut previous: Vec<usize> = (0..=right.len()).collect();
    for (row, l) in left.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, r) in right.iter().enumerate() {
            let mut best = (previous[column] + usize::from(l != r))
                .min(previous[column + 1] + 1)
                .min(current[column] + 1);
            if row > 0 && column > 0 && *l == right[column - 1] && left[row - 1] == *r {
                best = best.min(before[column - 1] + 1);
            }
            current.push(best);
        }
        before = previous;
        previous = current;
    }
    previous[right.len()]
}

/// The candidate that a typist most likely meant, if one is near enough: at most a third of the
/// word wrong, or the word is the start or a hyphenated part of exactly that candidate.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    const LONGEST: usize = 128;
    if word.len() > LONGEST {
        return None;
    }
    let lower = word.to_lowercase().replace('_', "-");
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        let folded = candidate.to_lowercase().replace('_', "-");
        let edits = distance(&lower, &folded);
        let allowed = (lower.chars().count().max(folded.len()) / 3).max(1);
        let part = lower.len() >= 4
            && (folded.ends_with(&format!("-{lower}")) || folded.starts_with(&lower));
        let cost = if part { edits.min(allowed) } else { edits };
        if cost <= allowed && best.is_none_or(|(least, _)| cost < least) {
            best = Some((cost, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swap_counts_as_one_edit() {
        assert_eq!(distance("manage", "mnaage"), 1);
        assert_eq!(distance("use", "USE"), 0);
        assert_eq!(distance("", "abc"), 3);
    }

    #[test]
    fn typing_slips_are_guessed_and_strangers_are_not() {
        let types = ["generative-ai-chat", "generative-ai-apikey", "compartments"];
        let guess = |word| nearest(word, types.into_iter());
        assert_eq!(guess("generativ-ai-chat"), Some("generative-ai-chat"));
        assert_eq!(guess("generative-ai-chats"), Some("generative-ai-chat"));
        assert_eq!(guess("compartment"), Some("compartments"));
        assert_eq!(guess("chat"), Some("generative-ai-chat"));
        assert_eq!(guess("buckets"), None);
    }
}
