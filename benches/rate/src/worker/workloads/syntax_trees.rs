//! A small compiler's front: text to tokens, tokens to a tree, the tree simplified and printed.
//!
//! The trees are boxes, vectors and strings, as in most compilers that are written in Rust without
//! an arena: many small objects, freed where the tree is rebuilt and all at its end. The language is
//! made up: functions of `let`, `while`, `if` and `return` statements over integer expressions.

use std::fmt::{self, Display, Formatter, Write};

use super::Workload;
use crate::measure::Meter;
use crate::random::Random;

pub const SYNTAX_TREES: Workload = Workload {
    name: "syntax-trees",
    about: "a small language is parsed to a tree of boxes, which is simplified and printed again",
    operation: "one token: read, parsed, simplified and printed",
    threads: 1,
    threads_can_be_chosen: false,
    run: |size, meter| compile(size.of(20), meter),
};

fn compile(rounds: u64, meter: &mut Meter) {
    let text = Writer::new(1000).functions(200);
    meter.run(|| {
        let mut tokens = 0;
        let mut first = None;
        for _ in 0..rounds {
            let (functions, count) = parse(&text);
            let simple: Vec<_> = functions.into_iter().map(Function::simplify).collect();
            let mut printed = String::new();
            for function in &simple {
                write!(printed, "{function}").expect("a string takes all");
            }
            assert!(
                *first.get_or_insert_with(|| printed.clone()) == printed,
                "the result is another one"
            );
            tokens += count;
        }
        tokens
    });
}

#[derive(Clone, PartialEq)]
enum Token {
    Number(u64),
    Name(String),
    Sign(char),
}

struct Function {
    name: String,
    parameters: Vec<String>,
    body: Vec<Statement>,
}

enum Statement {
    Let(String, Expr),
    While(Expr, Vec<Statement>),
    If(Expr, Vec<Statement>, Vec<Statement>),
    Return(Expr),
}

enum Expr {
    Number(u64),
    Variable(String),
    Call(String, Vec<Expr>),
    Binary(char, Box<Expr>, Box<Expr>),
}

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let word = rest
            .find(|char: char| !char.is_ascii_alphanumeric())
            .unwrap_or(rest.len());
        let len = word.max(1);
        tokens.push(match first {
            '0'..='9' => Token::Number(rest[..len].parse().expect("numbers are small")),
            'a'..='z' => Token::Name(rest[..len].to_owned()),
            sign => Token::Sign(sign),
        });
        rest = rest[len..].trim_start();
    }
    tokens
}

/// All functions of a text, and the number of its tokens.
fn parse(text: &str) -> (Vec<Function>, u64) {
    let mut parser = Parser {
        tokens: tokens(text),
        next: 0,
    };
    let mut functions = Vec::new();
    while parser.next < parser.tokens.len() {
        functions.push(parser.function());
    }
    (functions, parser.tokens.len() as u64)
}

/// Takes one token after the other. The texts are right, so that it has no errors to tell.
struct Parser {
    tokens: Vec<Token>,
    next: usize,
}

impl Parser {
    fn take(&mut self) -> Token {
        self.next += 1;
        self.tokens[self.next - 1].clone()
    }

    /// Takes the next token if it is that sign.
    fn accept(&mut self, sign: char) -> bool {
        let is = self.tokens.get(self.next) == Some(&Token::Sign(sign));
        self.next += usize::from(is);
        is
    }

    fn expect(&mut self, sign: char) {
        assert!(self.accept(sign), "{sign} is missing");
    }

    fn name(&mut self) -> String {
        match self.take() {
            Token::Name(name) => name,
            _ => panic!("a name is missing"),
        }
    }

    /// Items with commas between them, in round brackets.
    fn list<T>(&mut self, item: impl Fn(&mut Self) -> T) -> Vec<T> {
        let mut items = Vec::new();
        self.expect('(');
        while !self.accept(')') {
            items.push(item(self));
            self.accept(',');
        }
        items
    }

    fn function(&mut self) -> Function {
        assert_eq!(self.name(), "fn");
        Function {
            name: self.name(),
            parameters: self.list(Self::name),
            body: self.block(),
        }
    }

    fn block(&mut self) -> Vec<Statement> {
        let mut statements = Vec::new();
        self.expect('{');
        while !self.accept('}') {
            statements.push(self.statement());
        }
        statements
    }

    fn statement(&mut self) -> Statement {
        match self.name().as_str() {
            "while" => Statement::While(self.expr(0), self.block()),
            "if" => Statement::If(self.expr(0), self.block(), self.block()),
            "let" => {
                let name = self.name();
                self.expect('=');
                let value = self.expr(0);
                self.expect(';');
                Statement::Let(name, value)
            }
            _ => {
                let value = self.expr(0);
                self.expect(';');
                Statement::Return(value)
            }
        }
    }

    /// An expression of operators that bind at least as much as `power`: the way of Pratt (1973).
    fn expr(&mut self, power: u8) -> Expr {
        let mut left = self.operand();
        while let Some(&Token::Sign(sign)) = self.tokens.get(self.next) {
            let binds = match sign {
                '<' => 1,
                '+' | '-' => 2,
                '*' => 3,
                _ => break,
            };
            if binds <= power {
                break;
            }
            self.next += 1;
            left = Expr::Binary(sign, Box::new(left), Box::new(self.expr(binds)));
        }
        left
    }

    fn operand(&mut self) -> Expr {
        match self.take() {
            Token::Number(number) => Expr::Number(number),
            Token::Sign(_) => {
                let inner = self.expr(0);
                self.expect(')');
                inner
            }
            Token::Name(name) => match self.tokens.get(self.next) {
                Some(Token::Sign('(')) => Expr::Call(name, self.list(|parser| parser.expr(0))),
                _ => Expr::Variable(name),
            },
        }
    }
}

impl Function {
    fn simplify(self) -> Self {
        Self {
            body: simplify(self.body),
            ..self
        }
    }
}

fn simplify(statements: Vec<Statement>) -> Vec<Statement> {
    statements
        .into_iter()
        .flat_map(Statement::simplify)
        .collect()
}

impl Statement {
    /// The same with fewer operations: none, one, or the statements of a branch.
    fn simplify(self) -> Vec<Self> {
        vec![match self {
            Self::Let(name, value) => Self::Let(name, value.simplify()),
            Self::Return(value) => Self::Return(value.simplify()),
            Self::While(condition, body) => match condition.simplify() {
                Expr::Number(0) => return Vec::new(),
                condition => Self::While(condition, simplify(body)),
            },
            Self::If(condition, then, otherwise) => match condition.simplify() {
                Expr::Number(0) => return simplify(otherwise),
                Expr::Number(_) => return simplify(then),
                condition => Self::If(condition, simplify(then), simplify(otherwise)),
            },
        }]
    }
}

impl Expr {
    fn simplify(self) -> Self {
        match self {
            Self::Number(_) | Self::Variable(_) => self,
            Self::Call(name, values) => {
                Self::Call(name, values.into_iter().map(Self::simplify).collect())
            }
            Self::Binary(sign, left, right) => match (sign, left.simplify(), right.simplify()) {
                ('+', Self::Number(left), Self::Number(right)) => {
                    Self::Number(left.wrapping_add(right))
                }
                ('-', Self::Number(left), Self::Number(right)) => {
                    Self::Number(left.wrapping_sub(right))
                }
                ('*', Self::Number(left), Self::Number(right)) => {
                    Self::Number(left.wrapping_mul(right))
                }
                ('<', Self::Number(left), Self::Number(right)) => {
                    Self::Number(u64::from(left < right))
                }
                ('+' | '-', left, Self::Number(0)) | ('*', left, Self::Number(1)) => left,
                ('+', Self::Number(0), right) | ('*', Self::Number(1), right) => right,
                (_, left, right) => Self::Binary(sign, Box::new(left), Box::new(right)),
            },
        }
    }
}

impl Display for Function {
    fn fmt(&self, out: &mut Formatter) -> fmt::Result {
        let Self {
            name,
            parameters,
            body,
        } = self;
        write!(out, "fn {name}({}) ", parameters.join(", "))?;
        print(body, out)
    }
}

/// Prints statements in curly brackets.
fn print(statements: &[Statement], out: &mut Formatter) -> fmt::Result {
    out.write_str("{\n")?;
    for statement in statements {
        match statement {
            Statement::Let(name, value) => writeln!(out, "let {name} = {value};")?,
            Statement::Return(value) => writeln!(out, "return {value};")?,
            Statement::While(condition, body) => {
                write!(out, "while {condition} ")?;
                print(body, out)?;
            }
            Statement::If(condition, then, otherwise) => {
                write!(out, "if {condition} ")?;
                print(then, out)?;
                print(otherwise, out)?;
            }
        }
    }
    out.write_str("}\n")
}

impl Display for Expr {
    fn fmt(&self, out: &mut Formatter) -> fmt::Result {
        match self {
            Self::Number(number) => write!(out, "{number}"),
            Self::Variable(name) => out.write_str(name),
            Self::Binary(sign, left, right) => write!(out, "({left} {sign} {right})"),
            Self::Call(name, values) => {
                let values: Vec<_> = values.iter().map(Self::to_string).collect();
                write!(out, "{name}({})", values.join(", "))
            }
        }
    }
}

/// Writes texts at random.
struct Writer {
    text: String,
    random: Random,
}

impl Writer {
    fn new(seed: u64) -> Self {
        Self {
            text: String::new(),
            random: Random::new(seed),
        }
    }

    fn functions(mut self, count: usize) -> String {
        for number in 0..count {
            self.text += &format!("fn function{number}(first, second) ");
            self.block(3);
        }
        self.text
    }

    fn block(&mut self, depth: usize) {
        self.text += "{\n";
        for statement in 0..2 + self.random.below(4) {
            match self.random.below(4) {
                0 if depth > 0 => {
                    self.text += "while ";
                    self.expr(3);
                    self.block(depth - 1);
                }
                1 if depth > 0 => {
                    self.text += "if ";
                    self.expr(2);
                    self.block(depth - 1);
                    self.block(depth - 1);
                }
                _ => {
                    self.text += &format!("let variable{statement} = ");
                    self.expr(5);
                    self.text += ";\n";
                }
            }
        }
        self.text += "return ";
        self.expr(3);
        self.text += ";\n}\n";
    }

    fn expr(&mut self, depth: usize) {
        match self.random.below(if depth == 0 { 4 } else { 10 }) {
            0 | 1 => self.text += &self.random.below(5).to_string(),
            2 => self.text += ["first", "second"][self.random.below(2)],
            3 => self.text += &format!("variable{}", self.random.below(6)),
            4 => {
                self.text += &format!("function{}(", self.random.below(200));
                self.expr(depth - 1);
                self.text += ", ";
                self.expr(depth - 1);
                self.text += ")";
            }
            _ => {
                self.text += "(";
                self.expr(depth - 1);
                self.text += [" + ", " - ", " * ", " < "][self.random.below(4)];
                self.expr(depth - 1);
                self.text += ")";
            }
        }
    }
}
