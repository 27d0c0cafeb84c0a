//! Studies: many runs of one file, executed by as many processes and machines as share its folder.
//!
//! ```text
//! runs/STUDY/manifest.json        the members and their configurations, as they were checked
//! runs/STUDY/claims/MEMBER.N.json who works on a member, or what came of it; N counts the tries
//! runs/STUDY/logs/MEMBER.log      what a member's process said, where several run at once
//! runs/STUDY/MEMBER/              the member's run
//! ```
//!
//! There is no server and no queue. What is to be done is read from the folder, and whoever creates
//! a member's next claim file executes it. A process that dies leaves nothing behind that another
//! one would have to be told of.

pub mod claim;
pub mod progress;
pub mod schedule;
pub mod slurm;
pub mod table;
