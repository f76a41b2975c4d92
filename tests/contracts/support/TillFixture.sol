// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {ITill} from "./../../../contracts/interfaces/ITill.sol";
import {ITransferWithAuthorization} from "./../../../contracts/interfaces/ITransferWithAuthorization.sol";
import {Open} from "./../../../contracts/types/Messages.sol";
import {Payer, Payment, Quote, Quotes} from "./../../../contracts/types/Quotes.sol";
import {Fixture} from "./Fixture.sol";

/// @title A till, a quote, and payments of it
/// @dev `buyer` pays; `thief` has money of its own and signs what it likes.
abstract contract TillFixture is Fixture {
    bytes32 internal constant TRANSFER = Quotes.TRANSFER_TYPEHASH;
    bytes32 private constant _CANCEL = keccak256("CancelAuthorization(address authorizer,bytes32 nonce)");
    uint128 internal constant PRICE = 1000;

    ITill internal till;
    Actor internal thief = _actor("thief");
    Quote internal quote;
    address internal receiver;
    bytes32 internal sessionId;

    function setUp() public virtual override {
        super.setUp();
        till = ITill(deployCode("Till.sol:Till", abi.encode(address(escrow))));
        _fund(thief.addr);
        quote = Quote({
            nodeId: nodeId,
            offerHash: keccak256("offer"),
            requestHash: keccak256("request"),
            key: key.addr,
            amount: PRICE,
            payBefore: START + 60,
            expiresAt: START + 300,
            salt: keccak256("salt")
        });
        (receiver, sessionId) = (till.receiverOf(quote), till.sessionIdOf(quote));
    }

    /* PAYMENTS */

    function _payment(Actor memory from, bytes32 nonce) internal view returns (Payment memory) {
        return _payment(from, PRICE, nonce);
    }

    function _payment(Actor memory from, uint256 value, bytes32 nonce) internal view returns (Payment memory) {
        return _payment(from, from.addr, value, nonce);
    }

    /// @dev Signed by `signer`, in the name of `from`.
    function _payment(Actor memory signer, address from, uint256 value, bytes32 nonce)
        internal
        view
        returns (Payment memory payment)
    {
        payment = Payment(from, value, 0, START + 120, nonce, "");
        bytes32 structHash = keccak256(
            abi.encode(TRANSFER, from, receiver, value, payment.validAfter, payment.validBefore, nonce)
        );
        payment.signature = _ofToken(signer, structHash);
    }

    function _named(Actor memory signer, Payment memory payment) internal view returns (bytes memory) {
        return _sign(signer, Quotes.hash(Payer(Quotes.hash(quote), payment.from, payment.nonce)));
    }

    /// @dev As anybody can who has seen the payment.
    function _push(Payment memory payment) internal {
        ITransferWithAuthorization(address(token))
            .transferWithAuthorization(
                payment.from,
                receiver,
                payment.value,
                payment.validAfter,
                payment.validBefore,
                payment.nonce,
                payment.signature
            );
    }

    /// @dev Leaves the authorization looking used, though no token moved.
    function _cancel(Actor memory signer, bytes32 nonce) internal {
        bytes memory signature = _ofToken(signer, keccak256(abi.encode(_CANCEL, signer.addr, nonce)));
        (bool ok,) = address(token)
            .call(
                abi.encodeWithSignature("cancelAuthorization(address,bytes32,bytes)", signer.addr, nonce, signature)
            );
        assertTrue(ok);
    }

    function _ofToken(Actor memory signer, bytes32 structHash) internal view returns (bytes memory) {
        bytes32 domain = IERC20Permit(address(token)).DOMAIN_SEPARATOR();
        (uint8 v, bytes32 r, bytes32 s) =
            vm.sign(signer.secret, MessageHashUtils.toTypedDataHash(domain, structHash));
        return abi.encodePacked(r, s, v);
    }

    /* READINGS */

    function _sessionTerms() internal view returns (Open memory) {
        return Open({
            buyer: receiver,
            key: quote.key,
            nodeId: quote.nodeId,
            amount: quote.amount,
            openBefore: quote.payBefore,
            expiresAt: quote.expiresAt,
            salt: Quotes.hash(quote)
        });
    }

    function _end() internal view returns (uint256) {
        return uint256(quote.expiresAt) + GRACE;
    }

    function _balance(Actor memory who) internal view returns (uint256) {
        return token.balanceOf(who.addr);
    }
}
