//! YAML as a tree with the position of each part. Scalars stay text: the key of a text gives its meaning.

use std::collections::HashMap;
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use serde_json::Value;

/// The greatest depth of a tree. It bounds the recursion.
const MAX_DEPTH: usize = 64;

/// A place in the text, both counted from 1, and how many characters it covers in its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
    pub(crate) width: usize,
}

/// A part of the tree. A part that no text held has no position.
pub(crate) struct Node {
    pub(crate) position: Option<Position>,
    pub(crate) content: Content,
}

pub(crate) enum Content {
    /// An empty value: the default holds.
    Nothing,
    Text(String),
    List(Vec<Rc<Node>>),
    Map(Vec<Entry>),
}

/// A key, where it stands, and its value.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) position: Option<Position>,
    pub(crate) value: Rc<Node>,
}

/// The reason why a text is not a tree.
pub(crate) struct Malformed {
    pub(crate) position: Position,
    pub(crate) message: String,
}

impl Node {
    /// Reads the one document of a text. An empty text is `Nothing`.
    pub(crate) fn parse(text: &str) -> Result<Rc<Self>, Malformed> {
        let mut reader = Reader { parser: Parser::new_from_str(text), anchors: HashMap::new(), depth: 0 };
        let mut root = Rc::new(Self { position: None, content: Content::Nothing });
        let mut documents = 0;
        loop {
            match reader.next()? {
                (Event::StreamEnd, _) => return Ok(root),
                (Event::StreamStart | Event::DocumentEnd | Event::Nothing, _) => {}
                (Event::DocumentStart(_), span) => {
                    documents += 1;
                    if documents > 1 {
                        return Err(malformed(span, "a second document begins; one is expected"));
                    }
                }
                (event, span) => root = reader.node(event, span)?,
            }
        }
    }

    /// The same tree from values that were parsed elsewhere.
    pub(crate) fn from_value(value: Value) -> Rc<Self> {
        let content = match value {
            Value::Null => Content::Nothing,
            Value::Bool(value) => Content::Text(value.to_string()),
            Value::Number(number) => Content::Text(number.to_string()),
            Value::String(text) => Content::Text(text),
            Value::Array(items) => Content::List(items.into_iter().map(Self::from_value).collect()),
            Value::Object(entries) => {
                let entry = |(key, value)| Entry { key, position: None, value: Self::from_value(value) };
                Content::Map(entries.into_iter().map(entry).collect())
            }
        };
        Rc::new(Self { position: None, content })
    }
}

struct Reader<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    anchors: HashMap<usize, Rc<Node>>,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Malformed> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let mark = error.marker();
                let position = Position { line: mark.line(), column: mark.col() + 1, width: 1 };
                Err(Malformed { position, message: error.info().to_owned() })
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span) -> Result<Rc<Node>, Malformed> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(malformed(span, &format!("nested more than {MAX_DEPTH} levels deep")));
        }
        let position = Some(position(span));
        let (content, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => {
                let empty = style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                (if empty { Content::Nothing } else { Content::Text(text.into_owned()) }, anchor)
            }
            Event::SequenceStart(anchor, _) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        (event, span) => items.push(self.node(event, span)?),
                    }
                }
                (Content::List(items), anchor)
            }
            Event::MappingStart(anchor, _) => (Content::Map(self.entries()?), anchor),
            Event::Alias(anchor) => {
                self.depth -= 1;
                // An anchor that is still open would make the tree a circle.
                return self
                    .anchors
                    .get(&anchor)
                    .cloned()
                    .ok_or_else(|| malformed(span, "an alias inside its own anchor"));
            }
            _ => (Content::Nothing, 0),
        };
        let node = Rc::new(Node { position, content });
        if anchor > 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        self.depth -= 1;
        Ok(node)
    }

    fn entries(&mut self) -> Result<Vec<Entry>, Malformed> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut merged: Vec<Entry> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            let key = match event {
                Event::MappingEnd => break,
                Event::Scalar(text, ..) => text.into_owned(),
                _ => return Err(malformed(span, "a key must be a text")),
            };
            let (event, value_span) = self.next()?;
            let value = self.node(event, value_span)?;
            if key == "<<" {
                // A key that is written here beats one that is merged in.
                merged.extend(sources(&value).into_iter().flatten());
                continue;
            }
            if entries.iter().any(|entry| entry.key == key) {
                return Err(malformed(span, &format!("the key {key} is given twice")));
            }
            entries.push(Entry { key, position: Some(position(span)), value });
        }
        for entry in merged {
            if !entries.iter().any(|it| it.key == entry.key) {
                entries.push(entry);
            }
        }
        Ok(entries)
    }
}

/// The maps that a merge key names: one, or a list of them.
fn sources(value: &Node) -> Vec<Vec<Entry>> {
    match &value.content {
        Content::Map(entries) => vec![entries.clone()],
        Content::List(items) => items.iter().flat_map(|item| sources(item)).collect(),
        Content::Nothing | Content::Text(_) => Vec::new(),
    }
}

fn position(span: Span) -> Position {
    let (start, end) = (span.start, span.end);
    let width = if start.line() == end.line() { end.col().saturating_sub(start.col()) } else { 1 };
    Position { line: start.line(), column: start.col() + 1, width: width.max(1) }
}

fn malformed(span: Span, message: &str) -> Malformed {
    Malformed { position: position(span), message: message.to_owned() }
}
