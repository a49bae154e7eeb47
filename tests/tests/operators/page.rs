//! Commands and their answers, read out of a page. Pure functions.

/// The fenced blocks of one language.
pub(crate) fn blocks(page: &str, language: &str) -> Vec<String> {
    page.split(&format!("```{language}\n"))
        .skip(1)
        .map(|after| after.split("```").next().unwrap().to_owned())
        .collect()
}

/// The commands of a block, each with the lines that it answers.
pub(crate) fn commands(block: &str) -> Vec<(String, Vec<String>)> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for line in block.lines() {
        match (line.strip_prefix("$ "), found.last_mut()) {
            (Some(command), _) => found.push((command.to_owned(), Vec::new())),
            (None, Some((_, answer))) => answer.push(line.to_owned()),
            (None, None) => panic!("a block begins with an answer: {line}"),
        }
    }
    found
}

/// Whether the lines are those of the page; a line `…` is any number of lines.
pub(crate) fn fits(expected: &[String], said: &[&str]) -> bool {
    match expected.split_first() {
        None => said.is_empty(),
        Some((first, rest)) if first == "…" => (0..=said.len()).any(|n| fits(rest, &said[n..])),
        Some((first, rest)) => said
            .split_first()
            .is_some_and(|(line, after)| line_fits(first, line) && fits(rest, after)),
    }
}

/// Whether a line is that of the page; `…` is any text, and spaces count as one.
fn line_fits(expected: &str, said: &str) -> bool {
    let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (expected, said) = (squeeze(expected), squeeze(said));
    let mut parts = expected.split('…');
    let Some(mut rest) = said.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let parts: Vec<_> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[test]
fn an_answer_that_the_page_does_not_give_is_found() {
    let expected = ["store  …".to_owned(), "…".to_owned(), "end …".to_owned()];
    assert!(fits(&expected, &["store none", "end x"]));
    assert!(fits(&expected, &["store none", "a", "b", "end x"]));
    assert!(!fits(&expected, &["store none", "a", "b"]));
    assert!(!fits(&expected, &["other", "end x"]));
    assert!(!line_fits("a … c", "a b d") && line_fits("a … c", "a b c"));
    assert!(!fits(&[], &["more"]));
}
