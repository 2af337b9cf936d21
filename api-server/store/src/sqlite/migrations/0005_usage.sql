-- How much each user has: tasks, and bytes of titles and descriptions. A quota costs one row so.
CREATE TABLE task_usage (
    user_id INTEGER PRIMARY KEY,
    tasks INTEGER NOT NULL,
    bytes INTEGER NOT NULL
) STRICT;

INSERT INTO task_usage (user_id, tasks, bytes)
SELECT user_id, count(*), sum(octet_length(title) + coalesce(octet_length(description), 0)) FROM tasks GROUP BY user_id;

CREATE TRIGGER task_usage_insert AFTER INSERT ON tasks BEGIN
    INSERT INTO task_usage (user_id, tasks, bytes)
    VALUES (new.user_id, 1, octet_length(new.title) + coalesce(octet_length(new.description), 0))
    ON CONFLICT (user_id) DO UPDATE SET tasks = tasks + 1, bytes = bytes + excluded.bytes;
END;

CREATE TRIGGER task_usage_update AFTER UPDATE OF title, description ON tasks BEGIN
    UPDATE task_usage SET bytes = bytes
        + octet_length(new.title) + coalesce(octet_length(new.description), 0)
        - octet_length(old.title) - coalesce(octet_length(old.description), 0)
    WHERE user_id = new.user_id;
END;

CREATE TRIGGER task_usage_delete AFTER DELETE ON tasks BEGIN
    UPDATE task_usage SET tasks = tasks - 1, bytes = bytes - octet_length(old.title) - coalesce(octet_length(old.description), 0)
    WHERE user_id = old.user_id;
END;
