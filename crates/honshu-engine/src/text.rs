//! Turns the bytes of tokens into text that may be shown: whole characters, and nothing that could still turn out to
//! be a stop string.

/// The text of one answer while it grows.
pub(crate) struct TextOut {
    /// Bytes that came and were not shown.
    held: Vec<u8>,
    stops: Vec<String>,
}

/// What can be shown after a token.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    pub text: String,
    /// The stop string that came up, and how many of the held bytes were before it.
    pub stopped: Option<(String, usize)>,
}

impl TextOut {
    pub(crate) fn new(stops: Vec<String>) -> Self {
        Self {
            held: Vec::new(),
            stops,
        }
    }

    /// Bytes that came and were not shown.
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// Takes the bytes of a token.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Shown {
        self.held.extend_from_slice(bytes);
        let first = self
            .stops
            .iter()
            .filter_map(|stop| find(&self.held, stop.as_bytes()).map(|at| (at, stop)))
            // Of two that begin at the same place, the longer one was meant.
            .min_by_key(|(at, stop)| (*at, std::cmp::Reverse(stop.len())));
        if let Some((at, stop)) = first {
            let stopped = Some((stop.clone(), at));
            self.held.truncate(at);
            return Shown {
                text: self.finish(),
                stopped,
            };
        }
        let hold = self
            .stops
            .iter()
            .map(|stop| overlap(&self.held, stop.as_bytes()))
            .max()
            .unwrap_or(0);
        let end = whole_characters(&self.held[..self.held.len() - hold]);
        let text = String::from_utf8_lossy(&self.held[..end]).into_owned();
        self.held.drain(..end);
        Shown {
            text,
            stopped: None,
        }
    }

    /// The rest, when no token will follow.
    pub(crate) fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.held).into_owned();
        self.held.clear();
        text
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// Length of the longest end of `text` with which `stop` could begin.
fn overlap(text: &[u8], stop: &[u8]) -> usize {
    let most = text.len().min(stop.len().saturating_sub(1));
    (1..=most)
        .rev()
        .find(|n| text[text.len() - n..] == stop[..*n])
        .unwrap_or(0)
}

/// Length without a last character that is only begun.
fn whole_characters(text: &[u8]) -> usize {
    for back in 1..=text.len().min(3) {
        let byte = text[text.len() - back];
        let needs = match byte {
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            0x80..=0xBF => continue,
            _ => return text.len(),
        };
        return if needs > back {
            text.len() - back
        } else {
            text.len()
        };
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(parts: &[&[u8]], stops: &[&str]) -> (Vec<String>, Option<String>) {
        let mut out = TextOut::new(stops.iter().map(|s| (*s).to_owned()).collect());
        let mut texts = Vec::new();
        for part in parts {
            let shown = out.push(part);
            texts.push(shown.text);
            if let Some((stop, _)) = shown.stopped {
                return (texts, Some(stop));
            }
        }
        texts.push(out.finish());
        (texts, None)
    }

    #[test]
    fn a_split_character_waits_for_its_end() {
        let (texts, _) = run(
            &[&[0xE6, 0x9D], &[0xB1, b'!', 0xF0], &[0x9F, 0x98], &[0x80]],
            &[],
        );
        assert_eq!(texts, ["", "東!", "", "😀", ""]);
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced_and_do_not_wait_for_ever() {
        let (texts, _) = run(&[&[0xFF, b'a'], &[0x80], b"b"], &[]);
        assert_eq!(texts.concat(), "\u{FFFD}a\u{FFFD}b");
    }

    #[test]
    fn a_stop_string_over_tokens_is_not_shown() {
        let (texts, stop) = run(&[b"one ##", b"# E", b"ND two"], &["### END"]);
        assert_eq!(texts, ["one ", "", ""]);
        assert_eq!(stop.as_deref(), Some("### END"));
    }

    #[test]
    fn what_only_looked_like_a_stop_string_is_shown() {
        let (texts, stop) = run(&[b"a#", b"#b"], &["###"]);
        assert_eq!((texts.concat(), stop), ("a##b".to_owned(), None));
    }

    proptest! {
        #[test]
        fn however_it_is_split_the_text_is_the_same(
            text in "[ab東😀 ]{0,40}", cuts in proptest::collection::vec(0_usize..160, 0..8), stop in "[ab東]{1,3}"
        ) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let parts: Vec<&[u8]> = cuts.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
            let (texts, stopped) = run(&parts, &[&stop]);
            let expected = text.find(&stop).map_or(text.as_str(), |at| &text[..at]);
            prop_assert_eq!(texts.concat(), expected);
            prop_assert_eq!(stopped.is_some(), text.contains(&stop));
        }
    }
}
