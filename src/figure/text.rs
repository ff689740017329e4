//! How much room a text needs. Pure.
//!
//! In: a text and the size of its letters. Out: pixels, lines. The fonts of whoever reads are
//! unknown, so that widths are estimated, rather wider than narrower.
//! Must not know: what is drawn where.

/// About how wide `text` is in a sans-serif of `size` pixels.
pub fn width(text: &str, size: f64) -> f64 {
    text.chars().map(em).sum::<f64>() * size
}

/// The width of a letter in its size, after the wider of the common fonts.
fn em(letter: char) -> f64 {
    match letter {
        'i' | 'j' | 'l' | 'I' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' | ' ' | '\u{a0}' | '\u{202f}' => 0.31,
        'f' | 't' | 'r' | '(' | ')' | '[' | ']' | '/' | '-' | '\u{2070}'..='\u{207f}' | '²' | '³' | '¹' => 0.40,
        'm' | 'w' | 'M' | 'W' | '%' | '@' | '—' => 0.92,
        'A'..='Z' | '+' | '=' | '<' | '>' | '−' | '±' => 0.71,
        // Scripts whose letters fill a square.
        '\u{1100}'..='\u{11ff}' | '\u{2e80}'..='\u{d7ff}' | '\u{f900}'..='\u{faff}' | '\u{ff00}'..='\u{ffef}' => 1.0,
        _ => 0.60,
    }
}

/// `text` in lines of at most `room` pixels; a single word that is longer stands alone.
pub fn wrap(text: &str, size: f64, room: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if width(line, size) + width(" ", size) + width(word, size) <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// `text`, or as much of its beginning as `room` pixels hold, with an ellipsis.
pub fn fit(text: &str, size: f64, room: f64) -> String {
    if width(text, size) <= room {
        return text.to_owned();
    }
    let mut left = room - width("…", size);
    let mut kept: String = text
        .chars()
        .take_while(|&letter| {
            left -= em(letter) * size;
            left >= 0.0
        })
        .collect();
    kept.push('…');
    kept
}

/// `text` as XML and HTML hold it, without the control characters that XML forbids.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in printable(text).chars() {
        match letter {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// `text` with a space for every character that XML forbids.
pub fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() || matches!(letter, '\u{fffe}' | '\u{ffff}') { ' ' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_hold_all_words_and_keep_to_the_room() {
        let text = "False negatives against false positives at the door of the building";
        let lines = wrap(text, 14.0, 200.0);
        assert!(lines.len() > 1);
        assert!(lines.iter().all(|line| width(line, 14.0) <= 200.0));
        assert_eq!(lines.join(" "), text);
    }

    #[test]
    fn what_does_not_fit_is_shortened() {
        assert_eq!(fit("short", 12.0, 100.0), "short");
        let shortened = fit("a name that is far too long", 12.0, 80.0);
        assert!(shortened.ends_with('…') && width(&shortened, 12.0) <= 80.0 && shortened.len() > 6, "{shortened}");
    }

    #[test]
    fn markup_and_control_characters_are_harmless() {
        assert_eq!(escape("<b a=\"1\">&'\u{0}"), "&lt;b a=&quot;1&quot;&gt;&amp;&#39; ");
    }
}
