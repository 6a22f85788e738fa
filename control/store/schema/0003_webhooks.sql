-- Ordered fallbacks with classes of errors, as JSON text; names of parameters that leave encrypted.
ALTER TABLE incoming_phone_numbers ADD COLUMN voice_fallback_urls TEXT;
ALTER TABLE applications ADD COLUMN voice_fallback_urls TEXT;
ALTER TABLE accounts ADD COLUMN encrypted_parameters TEXT;
