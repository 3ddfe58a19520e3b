//! What a policy means: the nouns of waylay and `decide`, the definition every engine is compared with.
