//! What keys do. Main thread, between two pictures: changes where the reader is in the model, and says what is to be asked
//! of the box, which `feed` does.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::model::{Model, Tab, text};

/// What a key asks for beyond this screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    Quit,
    /// That a rule only looks on, or speaks again.
    Shadow {
        rule: String,
        on: bool,
    },
}

pub fn press(model: &mut Model, key: KeyEvent) -> Option<Asked> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    model.said.clear();
    if std::mem::take(&mut model.help) && key.code != KeyCode::Char('q') {
        return None;
    }
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Some(Asked::Quit),
        KeyCode::Char('q') => return Some(Asked::Quit),
        KeyCode::Esc => model.open = false,
        KeyCode::Char('?' | 'h') => model.help = true,
        KeyCode::Char('1') => model.turn_to(Tab::Now),
        KeyCode::Char('2') => model.turn_to(Tab::Traffic),
        KeyCode::Char('3') => model.turn_to(Tab::Rules),
        KeyCode::Char('4') => model.turn_to(Tab::Books),
        KeyCode::Tab | KeyCode::Right => model.turn(1),
        KeyCode::BackTab | KeyCode::Left => model.turn(Tab::ALL.len() - 1),
        KeyCode::Up | KeyCode::Char('k') => model.up(1),
        KeyCode::Down | KeyCode::Char('j') => model.down(1),
        KeyCode::PageUp => model.up(10),
        KeyCode::PageDown => model.down(10),
        KeyCode::Enter => model.open = model.lines() > 0,
        KeyCode::Char('s') => return shadow(model),
        _ => {}
    }
    None
}

fn shadow(model: &Model) -> Option<Asked> {
    let rule = model.rule()?;
    let on = !rule["shadow"].as_bool().unwrap_or(false);
    Some(Asked::Shadow { rule: text(rule, "rule").to_owned(), on })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::top::model::Told;

    fn press_all(model: &mut Model, keys: &[KeyCode]) -> Option<Asked> {
        keys.iter().map(|key| press(model, KeyEvent::new(*key, KeyModifiers::NONE))).last().flatten()
    }

    #[test]
    fn keys_move_open_and_ask() {
        let mut model = Model::default();
        let rules = vec![json!({ "rule": "a", "matched": 9 }), json!({ "rule": "b", "shadow": true })];
        let incidents = vec![json!({ "id": "1" })];
        model.take(Told { rules, incidents, ..Told::default() });
        assert_eq!(press_all(&mut model, &[KeyCode::Enter]), None);
        assert!(model.open);
        assert_eq!(press_all(&mut model, &[KeyCode::Esc]), None);
        assert_eq!(press_all(&mut model, &[KeyCode::Char('s')]), None, "incidents have no shadow");
        let on = Asked::Shadow { rule: "a".to_owned(), on: true };
        assert_eq!(press_all(&mut model, &[KeyCode::Char('3'), KeyCode::Char('s')]), Some(on));
        let off = Asked::Shadow { rule: "b".to_owned(), on: false };
        assert_eq!(press_all(&mut model, &[KeyCode::PageDown, KeyCode::Char('s')]), Some(off));
        assert_eq!(
            (press_all(&mut model, &[KeyCode::Tab, KeyCode::Enter]), model.tab, model.open),
            (None, Tab::Books, false)
        );
        assert_eq!(
            press_all(&mut model, &[KeyCode::Char('?'), KeyCode::Esc]),
            None,
            "only the help goes away"
        );
        assert_eq!(press_all(&mut model, &[KeyCode::Esc]), None, "there is nothing to go back to");
        assert_eq!(press_all(&mut model, &[KeyCode::Char('q')]), Some(Asked::Quit));
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(press(&mut model, interrupt), Some(Asked::Quit));
    }
}
