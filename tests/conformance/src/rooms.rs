//! The rooms of a package: the files and folders directly under its `src/`, in an order, lowest first. A room uses only itself and the
//! rooms below it. Every `crate::` and `super::` path counts, wherever it stands; comments do not. Another name for the crate or for a
//! parent (`crate as`, `super as`, `extern crate self`) hides paths, and counts as a use of the root. Without an upward path there can
//! be no circle between rooms.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The room of the crate's root, where its public names are.
const LIB: &str = "lib";

/// The rooms that a document lists: the first cells, in code font, of the table below the heading `## Rooms`, up to the next heading.
///
/// # Panics
/// If there is no such table.
pub fn listed_in(document: &str) -> Vec<String> {
    let section = document.split("\n## Rooms\n").nth(1).expect("a section `## Rooms`");
    let section = section.split("\n#").next().unwrap_or_default();
    let cells = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let rooms: Vec<String> = cells.map(|(room, _)| room.to_owned()).collect();
    assert!(!rooms.is_empty(), "the section `## Rooms` lists none");
    rooms
}

/// Everything in `src` that breaks the order: paths from a room to one above it, with their places; and rooms that are not listed, or
/// listed and absent.
///
/// # Panics
/// If a file cannot be read or is not Rust.
pub fn violations(src: &Path, order: &[String]) -> Vec<String> {
    let mut uses = Vec::new();
    read_folder(src, &mut Vec::new(), &mut uses);
    let found: BTreeSet<&str> = uses.iter().map(|it| &*it.from).chain([LIB]).collect();
    let level = |room: &str| order.iter().position(|it| it == room);
    let unlisted = found.iter().filter(|room| level(room).is_none()).map(|room| format!("{room}: is not listed"));
    let absent = order.iter().filter(|room| !found.contains(&***room)).map(|room| format!("{room}: does not exist"));
    // A path from the root that leads to no room is a public name of the root.
    let target = |it: &Use| if level(&it.to).is_some() { it.to.clone() } else { LIB.to_owned() };
    let upward = uses
        .iter()
        .map(|it| (it, target(it)))
        .filter(|(it, to)| level(&it.from).is_some() && level(&it.from) < level(to));
    let upward = upward.map(|(it, to)| format!("{} uses {to}", it.place));
    unlisted.chain(absent).chain(upward).collect()
}

/// One path from a room to a room.
struct Use {
    from: String,
    to: String,
    /// The file and the line.
    place: String,
}

fn read_folder(folder: &Path, module: &mut Vec<String>, uses: &mut Vec<Use>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry of the folder").path();
        let Some(name) = path.file_stem().and_then(|name| name.to_str()) else { continue };
        module.push(name.to_owned());
        if path.is_dir() {
            read_folder(&path, module, uses);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source file");
            let tokens: TokenStream = text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let from = &module[0];
            // A file that uses nothing is a room all the same.
            uses.push(Use { from: from.clone(), to: from.clone(), place: String::new() });
            let root: &[String] = if *module == [LIB] { &[] } else { module };
            read_tokens(tokens, root, &mut |to: &str, line| {
                uses.push(Use { from: from.clone(), to: to.to_owned(), place: format!("{}:{line}", path.display()) });
            });
        }
        module.pop();
    }
}

/// Reports the room of each `crate::` and `super::` path, with its line. `module` is the path of the module that the tokens are in.
fn read_tokens(tokens: TokenStream, module: &[String], report: &mut impl FnMut(&str, usize)) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Group(group) => read_tokens(group.stream(), module, report),
            TokenTree::Ident(word) if word == "mod" => {
                if let (Some(TokenTree::Ident(name)), Some(TokenTree::Group(body))) =
                    (tokens.get(at + 1), tokens.get(at + 2))
                {
                    read_tokens(body.stream(), &[module, &[name.to_string()]].concat(), report);
                    at += 2;
                }
            }
            TokenTree::Ident(word) if (word == "crate" || word == "super") && is_path(&tokens, at) => {
                let line = word.span().start().line;
                let mut base = if word == "crate" { &[][..] } else { parent(module) };
                at += 3;
                while is_word(tokens.get(at), "super") && is_path(&tokens, at) {
                    base = parent(base);
                    at += 3;
                }
                match (base.first(), tokens.get(at)) {
                    (Some(room), Some(TokenTree::Group(list))) => {
                        report(room, line);
                        // In the braces, `super` is relative to the path before them.
                        read_tokens(list.stream(), base, report);
                        at += 1;
                    }
                    (Some(room), _) => report(room, line),
                    (None, Some(TokenTree::Ident(first))) => report(&first.to_string(), line),
                    (None, Some(TokenTree::Group(list))) if list.delimiter() == Delimiter::Brace => {
                        report_list(list.stream(), line, report);
                    }
                    _ => report(LIB, line),
                }
                continue;
            }
            TokenTree::Ident(word)
                if (word == "crate" || word == "super") && is_word(tokens.get(at + 1), "as")
                    || word == "crate" && is_word(tokens.get(at + 1), "self") =>
            {
                report(LIB, word.span().start().line);
            }
            _ => {}
        }
        at += 1;
    }
}

/// Reports the room of each path in the braces of `use crate::{…}`.
fn report_list(list: TokenStream, line: usize, report: &mut impl FnMut(&str, usize)) {
    let tokens: Vec<TokenTree> = list.into_iter().collect();
    for (at, token) in tokens.iter().enumerate() {
        let begins = at == 0 || matches!(&tokens[at - 1], TokenTree::Punct(mark) if mark.as_char() == ',');
        if let (true, TokenTree::Ident(first)) = (begins, token) {
            report(&first.to_string(), line);
        }
    }
}

fn is_path(tokens: &[TokenTree], at: usize) -> bool {
    let is_colon = |token: Option<&TokenTree>| matches!(token, Some(TokenTree::Punct(mark)) if mark.as_char() == ':');
    is_colon(tokens.get(at + 1)) && is_colon(tokens.get(at + 2))
}

fn is_word(token: Option<&TokenTree>, word: &str) -> bool {
    matches!(token, Some(TokenTree::Ident(ident)) if ident == word)
}

fn parent(module: &[String]) -> &[String] {
    module.split_last().map_or(&[], |(_, parent)| parent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder;

    /// The violations of sources that stand in `lib.rs`, `low.rs`, `low/part.rs` and `high.rs`, in this order from below: low, high, lib.
    fn wrong_with(files: [&str; 4]) -> Vec<String> {
        let src = folder::new("rooms");
        fs::create_dir(src.join("low")).expect("a folder");
        for (name, text) in ["lib.rs", "low.rs", "low/part.rs", "high.rs"].iter().zip(files) {
            fs::write(src.join(name), text).expect("a file");
        }
        let wrong = violations(&src, &["low", "high", LIB].map(str::to_owned));
        let prefix = format!("{}/", src.display());
        fs::remove_dir_all(&src).expect("the folder goes");
        wrong.into_iter().map(|line| line.replace(&prefix, "")).collect()
    }

    #[test]
    fn paths_downward_and_inside_a_room_are_allowed() {
        let wrong = wrong_with([
            "mod low; mod high; pub use high::Tower;",
            "mod part; pub(crate) use part::Stone; //! crate::high",
            "use super::Stone; pub(in crate::low) struct Pebble(super::super::low::Stone);",
            "use crate::{low::Stone}; /// See [`crate::Tower`].\npub struct Tower(Stone, &'static str); const PATH: &str = \"crate::lib\";",
        ]);
        assert_eq!(wrong, Vec::<String>::new());
    }

    #[test]
    fn every_form_of_an_upward_path_is_found() {
        let upward = [
            ("use crate::high::Tower;", "high"),
            ("use crate::{high::Tower, low::Stone};", "high"),
            ("use super::super::high::Tower;", "high"),
            ("fn f() { let _ = vec![crate::high::Tower]; }", "high"),
            ("mod tests { use super::super::super::high::Tower; }", "high"),
            ("macro_rules! m { () => { $crate::high::Tower }; }", "high"),
            ("struct Pebble(crate::Tower);", "lib"),
            ("use crate::{Tower};", "lib"),
            ("use super::{super::high::Tower};", "high"),
            ("use crate as root; fn f(_: root::high::Tower) {}", "lib"),
            ("use crate::{self as root}; fn f(_: root::high::Tower) {}", "lib"),
            ("use super::super as up; fn f(_: up::high::Tower) {}", "lib"),
            ("use super::{super as up}; fn f(_: up::high::Tower) {}", "lib"),
            ("extern crate self as me; fn f(_: me::high::Tower) {}", "lib"),
        ];
        for (text, room) in upward {
            let wrong = wrong_with(["", "", text, ""]);
            assert_eq!(wrong, [format!("low/part.rs:1 uses {room}")], "{text}");
        }
    }

    #[test]
    fn a_room_that_is_not_listed_is_told_and_one_that_is_gone() {
        let src = folder::new("rooms");
        for name in ["lib.rs", "low.rs"] {
            fs::write(src.join(name), "").expect("a file");
        }
        let wrong = violations(&src, &["cellar", LIB].map(str::to_owned));
        fs::remove_dir_all(&src).expect("the folder goes");
        assert_eq!(wrong, ["low: is not listed", "cellar: does not exist"]);
    }

    #[test]
    fn the_rooms_of_a_document_are_the_first_cells_of_its_table() {
        let document = "# Map\n\n## Rooms\n\nText.\n\n| room | has |\n|---|---|\n| `low` | `x` |\n| `high` | y |\n\n### More\n\n| `no` | |\n";
        assert_eq!(listed_in(document), ["low", "high"]);
    }
}
