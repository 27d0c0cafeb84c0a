//! `ist devices`: the backends this project knows, and what is there.

use serde_json::json;

use super::{Json, print_json};
use crate::machine::device;
use ist_records::Failure;
use ist_records::terminal::screen;

/// Lists the devices.
pub fn run(arguments: &Json) -> Result<(), Failure> {
    let devices = device::list();
    if arguments.json {
        return print_json(&json!({"devices": devices}));
    }
    let row = |device: &device::DeviceInfo| {
        let mark = if device.present { "yes" } else { "no" };
        format!("{:<8} {mark:<4} {}  {}\n", device.name, device.detail, device.dtypes.join(" "))
    };
    screen::result(&devices.iter().map(row).collect::<String>())
}
