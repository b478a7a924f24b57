--
-- PostgreSQL database cluster dump
--

\restrict bHS0oGGvk5ccwyA83JvKw65S8j0E30zxpz5bJpvUcBWUmSU929Kyx7GGomakpxr

SET default_transaction_read_only = off;

SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;

--
-- Roles
--

CREATE ROLE postgres;
ALTER ROLE postgres WITH SUPERUSER INHERIT CREATEROLE CREATEDB LOGIN REPLICATION BYPASSRLS;

--
-- User Configurations
--








\unrestrict bHS0oGGvk5ccwyA83JvKw65S8j0E30zxpz5bJpvUcBWUmSU929Kyx7GGomakpxr

--
-- PostgreSQL database cluster dump complete
--

