#!/bin/sh
# Patroni runs this once, when the first primary has been initialised, with the superuser's connection string.
exec psql --no-psqlrc --set=ON_ERROR_STOP=1 "$1" <<'SQL'
\getenv password TASKS_PASSWORD
CREATE ROLE tasks LOGIN PASSWORD :'password';
CREATE DATABASE tasks OWNER tasks;
SQL
