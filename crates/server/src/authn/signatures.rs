//! The signatures of JWTs, verified with `ring`, which TLS needs anyway. Nothing is signed here, and
//! there are no HMACs: keys of issuers are public.

use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result, new_error};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use ring::signature::{self as ring_signatures, RsaPublicKeyComponents, UnparsedPublicKey};
use signature::{Error, Verifier};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(new_error(ErrorKind::UnsupportedAlgorithm)),
    verifier_factory: |algorithm, key| Ok(Box::new(Signatures::new(*algorithm, key)?)),
    key_utils: KeyUtils::new_unimplemented(),
};

/// Makes JWTs verifiable in this process.
pub(super) fn install() {
    // An error says that it is installed.
    let _ = PROVIDER.install_default();
}

/// Verifies signatures with one key.
struct Signatures {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl Signatures {
    fn new(algorithm: Algorithm, key: &DecodingKey) -> Result<Self> {
        match key.family() == algorithm.family() {
            true => Ok(Self {
                algorithm,
                key: key.clone(),
            }),
            false => Err(new_error(ErrorKind::InvalidKeyFormat)),
        }
    }

    /// One of which only its bytes are known.
    fn verify_plain(
        &self,
        algorithm: &'static dyn ring_signatures::VerificationAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> std::result::Result<(), Error> {
        let key = self.key.try_get_as_bytes().map_err(|_| Error::new())?;
        let key = UnparsedPublicKey::new(algorithm, key);
        key.verify(message, signature).map_err(|_| Error::new())
    }

    fn verify_rsa(
        &self,
        parameters: &'static ring_signatures::RsaParameters,
        message: &[u8],
        signature: &[u8],
    ) -> std::result::Result<(), Error> {
        let DecodingKeyKind::RsaModulusExponent { n, e } = self.key.kind() else {
            return Err(Error::new());
        };
        // Some issuers write the sign's byte, too.
        let (n, e) = (without_zeros(n), without_zeros(e));
        let verified = RsaPublicKeyComponents { n, e }.verify(parameters, message, signature);
        verified.map_err(|_| Error::new())
    }
}

fn without_zeros(mut number: &[u8]) -> &[u8] {
    while let [0, rest @ ..] = number {
        number = rest;
    }
    number
}

impl Verifier<Vec<u8>> for Signatures {
    fn verify(&self, message: &[u8], of: &Vec<u8>) -> std::result::Result<(), Error> {
        use ring_signatures as ring;
        match self.algorithm {
            Algorithm::RS256 => self.verify_rsa(&ring::RSA_PKCS1_2048_8192_SHA256, message, of),
            Algorithm::RS384 => self.verify_rsa(&ring::RSA_PKCS1_2048_8192_SHA384, message, of),
            Algorithm::RS512 => self.verify_rsa(&ring::RSA_PKCS1_2048_8192_SHA512, message, of),
            Algorithm::PS256 => self.verify_rsa(&ring::RSA_PSS_2048_8192_SHA256, message, of),
            Algorithm::PS384 => self.verify_rsa(&ring::RSA_PSS_2048_8192_SHA384, message, of),
            Algorithm::PS512 => self.verify_rsa(&ring::RSA_PSS_2048_8192_SHA512, message, of),
            Algorithm::ES256 => self.verify_plain(&ring::ECDSA_P256_SHA256_FIXED, message, of),
            Algorithm::ES384 => self.verify_plain(&ring::ECDSA_P384_SHA384_FIXED, message, of),
            Algorithm::EdDSA => self.verify_plain(&ring::ED25519, message, of),
            _ => Err(Error::new()),
        }
    }
}

impl JwtVerifier for Signatures {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
