-- May be run again and again.
SELECT 'CREATE ROLE shop LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'shop') \gexec
SELECT 'CREATE DATABASE shop OWNER shop' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'shop') \gexec
\connect shop
SET client_min_messages = warning;
CREATE TABLE IF NOT EXISTS done (job text PRIMARY KEY, worker integer NOT NULL);
GRANT SELECT, INSERT ON done TO shop;
