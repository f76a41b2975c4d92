// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ERC3009} from "@openzeppelin/contracts/token/ERC20/extensions/draft-ERC3009.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {ITill} from "./../../../contracts/interfaces/ITill.sol";
import {Open} from "./../../../contracts/types/Messages.sol";
import {Payer, Payment, Quote, Quotes} from "./../../../contracts/types/Quotes.sol";
import {Session} from "./../../../contracts/types/Sessions.sol";
import {CourtProof} from "./CourtProof.sol";
import {PlainToken} from "./PlainToken.sol";

/// @title The plainest token with EIP-3009
contract PlainDollar is PlainToken, ERC3009 {
    constructor() EIP712("Plain", "1") {}

    function DOMAIN_SEPARATOR() external view returns (bytes32) {
        return _domainSeparatorV4();
    }
}

/// @title The till too, in any state whatever, and one quote with its receiver
/// @notice The quote is a fixed one: its receiver's address is a hash of it, and hashes are without known structure.
abstract contract TillProof is CourtProof {
    string private constant _TILL_CODE = "build/forge-proofs/Till.sol/Till.json";
    uint48 internal constant PAY_BEFORE = 1_800_000_060;
    uint48 internal constant EXPIRES = 1_800_000_300;
    uint128 internal constant AMOUNT = 1000;
    address internal constant KEY = address(0x4E7);

    ITill internal till;
    Quote internal quote;
    address internal receiver;
    bytes32 internal sessionId;

    function setUp() public override {
        super.setUp();
        till = ITill(deployCode(_TILL_CODE, abi.encode(escrow)));
        quote = Quote(1, "offer", "request", KEY, AMOUNT, PAY_BEFORE, EXPIRES, "salt");
        (receiver, sessionId) = (till.receiverOf(quote), till.sessionIdOf(quote));
        // As the first call about a quote makes it.
        vm.etch(
            receiver,
            abi.encodePacked(hex"363d3d373d3d3d363d73", address(till.RECEIVER()), hex"5af43d82803e903d91602b57fd5bf3")
        );
        HALMOS.enableSymbolicStorage(address(till));
    }

    function _newToken() internal override returns (PlainToken) {
        return new PlainDollar();
    }

    function _call(address caller, bytes memory data) internal returns (bool ok) {
        vm.prank(caller);
        (ok,) = address(till).call(data);
    }

    /// @dev None of the contracts, whose balances are others'.
    function _assumePerson(address who) internal view {
        vm.assume(who.code.length == 0);
    }

    function _session() internal view returns (Session memory) {
        return escrow.session(sessionId, KEY);
    }

    function _tokens(address who) internal view returns (uint256) {
        return token.balanceOf(who);
    }

    /// @dev Whom the signature of a payment recovers to.
    function _signerOf(Payment calldata payment) internal view returns (address) {
        bytes32 domain = PlainDollar(address(token)).DOMAIN_SEPARATOR();
        bytes32 digest = MessageHashUtils.toTypedDataHash(domain, Quotes.hash(payment, receiver));
        bytes calldata signature = payment.signature;
        if (signature.length != 65) return address(0);
        return ecrecover(digest, uint8(signature[64]), bytes32(signature), bytes32(signature[32:]));
    }

    function _namedBy(Payment calldata payment, bytes calldata word) internal view returns (address) {
        return _signerOf(Quotes.hash(Payer(Quotes.hash(quote), payment.from, payment.nonce)), word);
    }

    function _isUsed(Payment calldata payment) internal view returns (bool) {
        return PlainDollar(address(token)).authorizationState(payment.from, payment.nonce);
    }

    function _terms() internal view returns (Open memory) {
        return Open(receiver, KEY, 1, AMOUNT, PAY_BEFORE, EXPIRES, Quotes.hash(quote));
    }
}
