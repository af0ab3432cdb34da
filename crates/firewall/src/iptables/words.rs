//! Words of a line of `iptables-save`: separated by spaces, quoted with `"` where they hold some.

/// Splits a line into words; `None` when a quotation has no end, or goes on after its end.
///
/// Within quotes a backslash makes the next character plain, as iptables writes and reads it. A
/// quotation mark that closes ends the word for `iptables-restore` (1.8.9), whatever comes next:
/// `"a"--b` is two words to it. iptables never writes that, so it is refused.
pub(crate) fn split(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut chars = line.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return Some(words);
        }
        let mut word = String::new();
        let mut quoted = false;
        loop {
            match chars.peek().copied() {
                None if quoted => return None,
                None => break,
                Some('"') if quoted => {
                    chars.next();
                    if chars.peek().is_some_and(|c| !c.is_ascii_whitespace()) {
                        return None;
                    }
                    break;
                }
                Some('"') => quoted = true,
                Some('\\') if quoted => {
                    chars.next();
                    word.push(*chars.peek()?);
                }
                Some(c) if c.is_ascii_whitespace() && !quoted => break,
                Some(c) => word.push(c),
            }
            chars.next();
        }
        words.push(word);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quotation_marks_hold_words_together() {
        let line = r#"-A X -m comment --comment "a \"b\" -j Y" -j Z"#;
        let words = split(line).expect("it ends");
        assert_eq!(words[5..], [r#"a "b" -j Y"#, "-j", "Z"]);
        assert_eq!(split("\"open"), None);
        assert_eq!(split(r#"--comment "a"--modprobe=/bin/sh"#), None);
        assert_eq!(split(r#"--comment a"b c" d"#).map(|it| it.len()), Some(3));
        assert_eq!(split(r#""" a"#), Some(vec![String::new(), "a".to_owned()]));
    }

    proptest! {
        #[test]
        fn any_text_is_split_or_refused(line in ".{0,80}") {
            split(&line);
        }
    }
}
