//! The terminal: full screen on standard error, and keys.

use std::io::{self, Stderr};
use std::time::Duration;

use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use crossterm::execute;
use crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;

use super::state::State;
use super::view;

/// What the user wants.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Quit,
    Sort,
    Pause,
    /// Ctrl-C, which is the program's.
    Interrupt,
    Other,
}

impl Key {
    fn of(event: &Event) -> Self {
        let Event::Key(KeyEvent {
            code,
            modifiers,
            kind: KeyEventKind::Press,
            ..
        }) = event
        else {
            return Self::Other;
        };
        match code {
            KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => Self::Interrupt,
            KeyCode::Char('q') => Self::Quit,
            KeyCode::Char('s') => Self::Sort,
            KeyCode::Char('p') => Self::Pause,
            _ => Self::Other,
        }
    }
}

/// The terminal while the view has it. Dropping it gives the terminal back as it was.
pub(crate) struct Screen {
    terminal: Terminal<CrosstermBackend<Stderr>>,
}

impl Screen {
    /// None if the terminal cannot do it.
    pub(crate) fn open() -> Option<Self> {
        enable_raw_mode().ok()?;
        let terminal = Terminal::new(CrosstermBackend::new(io::stderr()));
        let opened = terminal.and_then(|terminal| {
            let screen = Self { terminal };
            execute!(io::stderr(), EnterAlternateScreen)?;
            Ok(screen)
        });
        match opened {
            Ok(screen) => Some(screen),
            Err(_) => {
                let _ = disable_raw_mode();
                None
            }
        }
    }

    /// The next key that was pressed, if there is one.
    pub(crate) fn key(&mut self) -> Option<Key> {
        if !event::poll(Duration::ZERO).unwrap_or(false) {
            return None;
        }
        event::read().ok().map(|event| Key::of(&event))
    }

    pub(crate) fn draw(&mut self, state: &State) {
        // A terminal that is gone is nobody to tell.
        let _ = self.terminal.draw(|frame| view::render(frame, state));
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.terminal.show_cursor();
        let _ = execute!(io::stderr(), LeaveAlternateScreen);
        let _ = disable_raw_mode();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_what_the_view_says() {
        let key = |code, modifiers| Key::of(&Event::Key(KeyEvent::new(code, modifiers)));
        let plain = KeyModifiers::NONE;
        for (letter, meant) in [
            ('q', Key::Quit),
            ('s', Key::Sort),
            ('p', Key::Pause),
            ('c', Key::Other),
            ('x', Key::Other),
        ] {
            assert_eq!(key(KeyCode::Char(letter), plain), meant);
        }
        let control = KeyModifiers::CONTROL;
        assert_eq!(key(KeyCode::Char('c'), control), Key::Interrupt);
        assert_eq!(key(KeyCode::Esc, plain), Key::Other);
        assert_eq!(Key::of(&Event::Resize(1, 1)), Key::Other);
    }
}
