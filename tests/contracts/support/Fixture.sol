// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {Test} from "forge-std/Test.sol";
import {ICourt} from "./../../../contracts/interfaces/ICourt.sol";
import {IEscrow} from "./../../../contracts/interfaces/IEscrow.sol";
import {INodeRegistry} from "./../../../contracts/interfaces/INodeRegistry.sol";
import {TestDollar} from "./../../../contracts/TestDollar.sol";
import {CourtRules} from "./../../../contracts/types/Cases.sol";
import {Close, Messages, Open, TopUp, Voucher} from "./../../../contracts/types/Messages.sol";
import {Session, SettleItem, SettleStatus} from "./../../../contracts/types/Sessions.sol";

/// @title One buyer, one key, one provider with one node, and everything they sign
abstract contract Fixture is Test {
    struct Actor {
        address addr;
        uint256 secret;
    }

    uint32 internal constant MAX_SESSION = 72 hours;
    uint32 internal constant GRACE = 15 minutes;
    uint32 internal constant CHALLENGE = 6 hours;
    uint48 internal constant DISPUTE = 36 hours;
    uint48 internal constant UNSTAKE_DELAY = 14 days;
    uint128 internal constant MIN_STAKE = 1000e6;
    uint128 internal constant FUNDS = 1_000_000e6;
    uint48 internal constant START = 1_800_000_000;
    bytes32 internal constant ROOT = keccak256("receipts");
    uint256 private constant _ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;

    IERC20 internal token;
    IEscrow internal escrow;
    INodeRegistry internal registry;
    ICourt internal court;
    address internal treasury = makeAddr("treasury");
    address internal provider = makeAddr("provider");
    address internal settler = makeAddr("settler");
    address internal stranger = makeAddr("stranger");
    Actor internal buyer = _actor("buyer");
    Actor internal key = _actor("key");
    Actor internal nodeKey = _actor("node key");
    uint32 internal nodeId;

    function setUp() public virtual {
        vm.warp(START);
        token = _newToken();
        address registryAt = vm.computeCreateAddress(address(this), vm.getNonce(address(this)) + 1);
        escrow = _deployEscrow(address(token), registryAt, treasury, MAX_SESSION);
        registry = _deployRegistry(address(token), address(escrow), UNSTAKE_DELAY);
        court = _deployCourt(address(escrow), _courtRules());
        _fund(buyer.addr);
        _fund(provider);
        nodeId = _serve(provider, nodeKey.addr, settler);
    }

    /* HOOKS of suites that bring another token */

    function _newToken() internal virtual returns (IERC20) {
        return IERC20(deployCode("TestDollar.sol:TestDollar"));
    }

    function _mint(address to, uint256 amount) internal virtual {
        TestDollar(address(token)).faucet(to, amount);
    }

    /* DEPLOYMENTS, from the artifacts that ship */

    function _deployEscrow(address token_, address registry_, address treasury_, uint32 maxSession)
        internal
        returns (IEscrow)
    {
        address courtAt = vm.computeCreateAddress(address(this), vm.getNonce(address(this)) + 2);
        bytes memory arguments = abi.encode(token_, registry_, courtAt, treasury_, maxSession, GRACE, CHALLENGE);
        return IEscrow(deployCode("Escrow.sol:Escrow", arguments));
    }

    function _deployRegistry(address token_, address escrow_, uint48 unstakeDelay) internal returns (INodeRegistry) {
        bytes memory arguments = abi.encode(token_, escrow_, MIN_STAKE, unstakeDelay, DISPUTE);
        return INodeRegistry(deployCode("NodeRegistry.sol:NodeRegistry", arguments));
    }

    function _deployCourt(address escrow_, CourtRules memory rules) internal returns (ICourt) {
        return ICourt(deployCode("Court.sol:Court", abi.encode(escrow_, rules)));
    }

    function _courtRules() internal pure returns (CourtRules memory) {
        return CourtRules({
            bond: 30e6,
            jurorFee: 5e6,
            jurorDeposit: 20e6,
            fullWeight: uint64(8 * MIN_STAKE),
            answerSeconds: 6 hours,
            drawSeconds: 1 hours,
            commitSeconds: 1 hours,
            revealSeconds: 1 hours
        });
    }

    /* STEPS */

    function _fund(address who) internal {
        _mint(who, FUNDS);
        vm.startPrank(who);
        token.approve(address(escrow), type(uint256).max);
        token.approve(address(registry), type(uint256).max);
        token.approve(address(court), type(uint256).max);
        vm.stopPrank();
    }

    function _serve(address owner, address signer, address settler_) internal virtual returns (uint32 id) {
        vm.startPrank(owner);
        registry.register("ipfs://provider");
        registry.stake(MIN_STAKE);
        id = registry.addNode(signer, bytes32("encryption"), settler_, "ipfs://node");
        vm.stopPrank();
    }

    function _deposit(uint128 amount) internal {
        vm.prank(buyer.addr);
        escrow.deposit(amount);
    }

    function _openOne(Open memory terms) internal returns (bytes32 sessionId) {
        sessionId = escrow.sessionIdOf(terms);
        escrow.openOneSession(terms, _signOpen(buyer, terms));
    }

    /// @dev Deposits and opens a session of this size, a day long.
    function _session(uint128 amount) internal returns (Open memory terms, bytes32 sessionId) {
        _deposit(amount);
        terms = _terms(amount);
        sessionId = _openOne(terms);
    }

    function _settleOne(SettleItem memory item) internal {
        SettleItem[] memory items = new SettleItem[](1);
        items[0] = item;
        vm.prank(settler);
        escrow.settle(items);
    }

    function _settleOne(bytes32 sessionId, uint32 throughSeq, uint128 amount) internal {
        _settleOne(_item(key, sessionId, throughSeq, amount));
    }

    function _expectSkip(bytes32 sessionId, SettleStatus status) internal {
        vm.expectEmit(address(escrow));
        emit IEscrow.VoucherSkipped(sessionId, status);
    }

    /* MESSAGES */

    function _terms(uint128 amount) internal view returns (Open memory) {
        uint48 now_ = uint48(vm.getBlockTimestamp());
        return Open({
            buyer: buyer.addr,
            key: key.addr,
            nodeId: nodeId,
            amount: amount,
            openBefore: now_ + 1 hours,
            expiresAt: now_ + 1 days,
            salt: bytes32(uint256(1))
        });
    }

    function _item(Actor memory signer, bytes32 sessionId, uint32 throughSeq, uint128 amount)
        internal
        view
        returns (SettleItem memory item)
    {
        bytes32 digest = _digest(Messages.hash(Voucher(sessionId, throughSeq, amount, ROOT)));
        (bytes32 r, bytes32 vs) = vm.signCompact(signer.secret, digest);
        return SettleItem(sessionId, throughSeq, amount, ROOT, r, vs);
    }

    function _signOpen(Actor memory signer, Open memory terms) internal view returns (bytes memory) {
        return _sign(signer, Messages.hash(terms));
    }

    function _signTopUp(Actor memory signer, bytes32 sessionId, uint128 total) internal view returns (bytes memory) {
        return _sign(signer, Messages.hash(TopUp(sessionId, total)));
    }

    function _signClose(Actor memory signer, bytes32 sessionId, uint128 minPaid) internal view returns (bytes memory) {
        return _sign(signer, Messages.hash(Close(sessionId, minPaid)));
    }

    function _sign(Actor memory signer, bytes32 structHash) internal view returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(signer.secret, _digest(structHash));
        return abi.encodePacked(r, s, v);
    }

    function _signShort(Actor memory signer, bytes32 structHash) internal view returns (bytes memory) {
        (bytes32 r, bytes32 vs) = vm.signCompact(signer.secret, _digest(structHash));
        return abi.encodePacked(r, vs);
    }

    /// @dev The other signature of the same signer over the same digest, which must be refused.
    function _signHigh(Actor memory signer, bytes32 structHash) internal view returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(signer.secret, _digest(structHash));
        return abi.encodePacked(r, bytes32(_ORDER - uint256(s)), v == 27 ? uint8(28) : uint8(27));
    }

    function _digest(bytes32 structHash) internal view returns (bytes32) {
        return MessageHashUtils.toTypedDataHash(escrow.DOMAIN_SEPARATOR(), structHash);
    }

    /* READINGS */

    function _held(bytes32 sessionId) internal view returns (Session memory) {
        return escrow.session(sessionId, key.addr);
    }

    function _earnings(uint32 id) internal view returns (uint96 earnings) {
        (, earnings) = escrow.nodeAccount(id);
    }

    function _actor(string memory name) internal returns (Actor memory actor) {
        (actor.addr, actor.secret) = makeAddrAndKey(name);
    }

    function _one(Open memory terms) internal pure returns (Open[] memory list) {
        list = new Open[](1);
        list[0] = terms;
    }

    function _one(bytes memory signature) internal pure returns (bytes[] memory list) {
        list = new bytes[](1);
        list[0] = signature;
    }

    function _one(uint32 id) internal pure returns (uint32[] memory list) {
        list = new uint32[](1);
        list[0] = id;
    }
}
