--
-- PostgreSQL database cluster dump
--

\restrict 27NlgmtFTOUaKasDASnF4Vue5z8J61oyo32Mty4CZdg65FJVXTBSnBOSSobGNj0

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








\unrestrict 27NlgmtFTOUaKasDASnF4Vue5z8J61oyo32Mty4CZdg65FJVXTBSnBOSSobGNj0

--
-- PostgreSQL database cluster dump complete
--

