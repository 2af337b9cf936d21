//! The roles of PostgreSQL that log in, as SQL: passwords have only characters that need no escape.

use crate::{Login, parts::database::TASKS};

impl Login {
    /// The logins of PostgreSQL that have two users in turn.
    pub const ALTERNATING: [Self; 3] = [Self::TASKS, Self::REPLICATION, Self::REWIND];

    /// SQL that lets a user of this login in.
    pub fn admission(&self, user: &str, password: &str) -> String {
        let made = format!(
            "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{user}') THEN CREATE ROLE {user}; END IF; END $$;\n"
        );
        let replication = if *self == Self::REPLICATION { " REPLICATION" } else { "" };
        let login = format!("ALTER ROLE {user} LOGIN{replication} PASSWORD '{password}';\n");
        format!("{made}{login}{}", self.rights(user))
    }

    /// SQL that lets a user of this login in no more. Its sessions go on.
    pub fn dismissal(&self, user: &str) -> String {
        format!("ALTER ROLE {user} NOLOGIN PASSWORD NULL;\n")
    }

    fn rights(&self, user: &str) -> String {
        match self.password {
            // What it makes belongs to the owner of the database.
            TASKS if user != self.user => {
                format!("GRANT {} TO {user};\nALTER ROLE {user} SET role TO {};\n", self.user, self.user)
            }
            "rewind-password" => [
                "pg_ls_dir(text, boolean, boolean)",
                "pg_stat_file(text, boolean)",
                "pg_read_binary_file(text)",
                "pg_read_binary_file(text, bigint, bigint, boolean)",
            ]
            .map(|function| format!("GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO {user};\n"))
            .concat(),
            _ => String::new(),
        }
    }
}
