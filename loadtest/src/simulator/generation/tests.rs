use super::StopScanner;

/// Feeds pieces, the last one as last; what was shown, and which stop was found.
fn scan(stops: &[&str], include: bool, pieces: &[&str]) -> (String, Option<String>) {
    let stops = stops.iter().map(|stop| (*stop).to_owned()).collect();
    let mut scanner = StopScanner { stops, include, held: String::new() };
    let mut shown = String::new();
    for (n, piece) in pieces.iter().enumerate() {
        let mut text = (*piece).to_owned();
        let found = scanner.scan(&mut text, n + 1 == pieces.len());
        shown.push_str(&text);
        if found.is_some() {
            return (shown, found);
        }
    }
    (shown, None)
}

#[test]
fn without_stops_text_passes_at_once() {
    assert_eq!(scan(&[], false, &["a", "b"]), ("ab".to_owned(), None));
}

#[test]
fn a_stop_across_pieces_is_found_and_cut_off() {
    let found = scan(&["STOP"], false, &["one S", "TO", "P two"]);
    assert_eq!(found, ("one ".to_owned(), Some("STOP".to_owned())));
    let found = scan(&["STOP"], true, &["one S", "TO", "P two"]);
    assert_eq!(found, ("one STOP".to_owned(), Some("STOP".to_owned())));
}

#[test]
fn a_beginning_that_comes_to_nothing_is_shown_in_the_end() {
    assert_eq!(scan(&["STOP"], false, &["one ST", "AR", ""]), ("one STAR".to_owned(), None));
}

#[test]
fn the_earliest_stop_wins() {
    let found = scan(&["b", "a"], false, &["xxabxx"]);
    assert_eq!(found, ("xx".to_owned(), Some("a".to_owned())));
}

#[test]
fn holding_back_never_splits_a_character() {
    assert_eq!(scan(&["abc"], false, &["é", "é", "é"]), ("ééé".to_owned(), None));
}
