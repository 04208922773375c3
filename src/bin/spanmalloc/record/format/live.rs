//! Which objects live: the rules that a trace's events follow.

use super::{Action, Event, MAX_ALIGN_LOG2};

/// The sum of the sizes of the objects that live, in bytes. The sizes are the caller's table; zero is an
/// object that does not live.
#[derive(Default)]
pub(crate) struct Live {
    bytes: u64,
    pub(crate) peak_bytes: u64,
}

impl Live {
    /// Does what the event says, or tells why it is impossible.
    pub(crate) fn apply(&mut self, event: &Event, sizes: &mut [u32]) -> Result<(), String> {
        let object = event.object;
        let size = sizes
            .get_mut(object as usize)
            .ok_or_else(|| format!("there is no object {object}"))?;
        let after = match event.action {
            Action::Alloc { .. } if *size != 0 => {
                return Err(format!("object {object} is allocated already"));
            }
            Action::Alloc { align_log2, .. } if align_log2 > MAX_ALIGN_LOG2 => {
                return Err("its alignment is out of range".to_owned());
            }
            Action::Realloc { .. } | Action::Free if *size == 0 => {
                return Err(format!("object {object} is not allocated"));
            }
            Action::Alloc { size: 0, .. } | Action::Realloc { size: 0 } => {
                return Err("its size is zero".to_owned());
            }
            Action::Alloc { size, .. } | Action::Realloc { size } => size,
            Action::Free => 0,
        };
        self.bytes = self.bytes - u64::from(*size) + u64::from(after);
        self.peak_bytes = self.peak_bytes.max(self.bytes);
        *size = after;
        Ok(())
    }
}
