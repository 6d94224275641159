//! The rooms of a package or of one of its modules: the files and folders directly under its folder, in an order, lowest
//! first. A room uses only itself and the rooms below it. Every `crate::` and `super::` path counts, wherever it stands;
//! comments do not. Another name for the crate (`crate as`, `extern crate self`) hides paths, and counts as a use of the root.
//! Without an upward path there can be no circle between rooms.
//!
//! A use without a path is not seen: a macro that is called by its name alone, a method of a type whose `impl` stands in a higher room, and a
//! closure of a higher room that is handed down.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The room of the crate's root, where its public names are.
const LIB: &str = "lib";

/// The rooms that a document lists: the first cells, in code font, of the table below the heading, `## Rooms` for example, up to the next
/// heading.
///
/// # Panics
/// If there is no such table.
pub fn listed_below(heading: &str, document: &str) -> Vec<String> {
    let section = document.split(&format!("\n{heading}\n")).nth(1).expect("the section");
    let section = section.split("\n#").next().unwrap_or_default();
    let cells = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let rooms: Vec<String> = cells.map(|(room, _)| room.to_owned()).collect();
    assert!(!rooms.is_empty(), "the section `{heading}` lists none");
    rooms
}

/// The rooms of a bridge that exist below `src`, in the order of `bridges/ARCHITECTURE.md`. A bridge leaves out a room that it does not need.
///
/// # Panics
/// If the document cannot be read or has no such table.
pub fn of_a_bridge(src: &Path) -> Vec<String> {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../../bridges/ARCHITECTURE.md");
    let listed = listed_below("## Rooms", &fs::read_to_string(document).expect("the document"));
    let exists =
        |room: &String| *room == LIB || src.join(room).is_dir() || src.join(room).with_extension("rs").is_file();
    listed.into_iter().filter(exists).collect()
}

/// Everything in `src` that breaks the order: paths from a room to one above it, with their places; and rooms that are not listed, or
/// listed and absent.
///
/// # Panics
/// If a file cannot be read or is not Rust.
pub fn violations(src: &Path, order: &[String]) -> Vec<String> {
    violations_of_module(src, &[], order)
}

/// The same for the rooms of the module `crate::MODULE`, which stand in `folder`. Paths that leave the module do not count.
///
/// # Panics
/// If a file cannot be read or is not Rust.
pub fn violations_of_module(folder: &Path, module: &[&str], order: &[String]) -> Vec<String> {
    let root: Vec<String> = module.iter().map(ToString::to_string).collect();
    let mut uses = Vec::new();
    read_folder(folder, root.len(), &mut root.clone(), &mut uses);
    let found: BTreeSet<&str> = uses.iter().map(|it| &*it.from).chain([LIB]).collect();
    let level = |room: &str| order.iter().position(|it| it == room);
    let unlisted = found.iter().filter(|room| level(room).is_none()).map(|room| format!("{room}: is not listed"));
    let absent = order.iter().filter(|room| !found.contains(&***room)).map(|room| format!("{room}: does not exist"));
    // A path from the root that leads to no room is a public name of the root.
    let target = |it: &Use| {
        let room = it.to.strip_prefix(&*root)?.first().filter(|room| level(room).is_some());
        Some(room.map_or_else(|| LIB.to_owned(), Clone::clone))
    };
    let upward = uses
        .iter()
        .filter_map(|it| Some((it, target(it)?)))
        .filter(|(it, to)| level(&it.from).is_some() && level(&it.from) < level(to));
    let upward = upward.map(|(it, to)| format!("{} uses {to}", it.place));
    unlisted.chain(absent).chain(upward).collect()
}

/// One path from a room.
struct Use {
    from: String,
    /// The names of the path, from the root of the crate.
    to: Vec<String>,
    /// The file and the line.
    place: String,
}

/// Reads the files below a folder. `module` is the path of the folder's module, and its name at `depth` is that of the room.
fn read_folder(folder: &Path, depth: usize, module: &mut Vec<String>, uses: &mut Vec<Use>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry of the folder").path();
        let Some(name) = path.file_stem().and_then(|name| name.to_str()) else { continue };
        module.push(name.to_owned());
        if path.is_dir() {
            read_folder(&path, depth, module, uses);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source file");
            let tokens: TokenStream = text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let from = &module[depth];
            // A file that uses nothing is a room all the same.
            uses.push(Use { from: from.clone(), to: module.clone(), place: String::new() });
            let root: &[String] = if *module == [LIB] { &[] } else { module };
            read_tokens(tokens, root, &mut |to, line| {
                uses.push(Use { from: from.clone(), to: to.to_owned(), place: format!("{}:{line}", path.display()) });
            });
        }
        module.pop();
    }
}

/// Reports each `crate::` and `super::` path, with its line. `module` is the path of the module that the tokens are in.
fn read_tokens(tokens: TokenStream, module: &[String], report: &mut impl FnMut(&[String], usize)) {
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
                at = read_path(&tokens, at, base.to_owned(), line, report);
                continue;
            }
            TokenTree::Ident(word)
                if word == "crate" && (is_word(tokens.get(at + 1), "as") || is_word(tokens.get(at + 1), "self")) =>
            {
                report(&[], word.span().start().line);
            }
            TokenTree::Ident(word) if word == "super" && is_word(tokens.get(at + 1), "as") => {
                report(parent(module), word.span().start().line);
            }
            _ => {}
        }
        at += 1;
    }
}

/// Reports the path that goes on at `at` behind `path`; with braces, each path in them. Returns where it ends.
fn read_path(
    tokens: &[TokenTree],
    mut at: usize,
    mut path: Vec<String>,
    line: usize,
    report: &mut impl FnMut(&[String], usize),
) -> usize {
    loop {
        match tokens.get(at) {
            Some(TokenTree::Ident(name)) => {
                if name == "super" {
                    path.pop();
                } else {
                    path.push(name.to_string());
                }
                if is_path(tokens, at) {
                    at += 3;
                    continue;
                }
                at += 1;
            }
            Some(TokenTree::Group(list)) if list.delimiter() == Delimiter::Brace => {
                let list: Vec<TokenTree> = list.stream().into_iter().collect();
                let is_comma = |token: &TokenTree| matches!(token, TokenTree::Punct(mark) if mark.as_char() == ',');
                for item in list.split(is_comma).filter(|item| !item.is_empty()) {
                    read_path(item, 0, path.clone(), line, report);
                }
                return at + 1;
            }
            _ => {}
        }
        report(&path, line);
        return at;
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
    fn the_rooms_of_a_module_are_read_like_those_of_a_crate() {
        let upward = [
            ("use crate::twin::high::Tower;", "high"),
            ("use crate::{low, twin::{low::Stone, high::Tower}};", "high"),
            ("use super::super::high::Tower;", "high"),
            ("use super::super::{high};", "high"),
            ("struct Pebble(crate::twin::Tower);", "lib"),
        ];
        for (text, room) in upward {
            assert_eq!(wrong_in_twin(text), [format!("low/part.rs:1 uses {room}")], "{text}");
        }
        for text in ["use crate::high::Tower;", "use crate::{high, lib};", "use super::super::low::Stone;"] {
            assert_eq!(wrong_in_twin(text), Vec::<String>::new(), "{text}");
        }
    }

    /// The violations of the module `crate::twin` with the rooms low and high, if this is the text of `low/part.rs`.
    fn wrong_in_twin(text: &str) -> Vec<String> {
        let twin = folder::new("rooms");
        fs::create_dir(twin.join("low")).expect("a folder");
        for (name, text) in [("low.rs", ""), ("low/part.rs", text), ("high.rs", "use super::low::Stone;")] {
            fs::write(twin.join(name), text).expect("a file");
        }
        let wrong = violations_of_module(&twin, &["twin"], &["low", "high", LIB].map(str::to_owned));
        let prefix = format!("{}/", twin.display());
        fs::remove_dir_all(&twin).expect("the folder goes");
        wrong.into_iter().map(|line| line.replace(&prefix, "")).collect()
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
        assert_eq!(listed_below("## Rooms", document), ["low", "high"]);
    }
}
